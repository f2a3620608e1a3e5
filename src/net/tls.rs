//! TLS: certificates from files, and a listener whose handshakes hold nobody up.
//!
//! **Invariant:** a client that connects and says nothing costs one of `HANDSHAKES` places for `PATIENCE` at most,
//! and never keeps another client out: when all places are taken, the oldest handshake ends.

use super::certificate::{self, Facts};
use axum::serve::Listener;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, InconsistentKeys, ServerConfig};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Handshakes that may go on at a time.
const HANDSHAKES: usize = 256;
/// How long a client may take for its handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long before its end people are told to renew a certificate.
const NOTICE_S: u64 = 14 * 24 * 3600;

/// Why TLS cannot be had, as a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

/// Reads a certificate with its chain and its key from PEM files, for a box whose clock shows `now_s` (seconds since
/// 1970). Gives them with what the certificate says.
///
/// # Errors
/// If a file cannot be read, holds something else, or the two do not serve.
pub fn own(certificate: &Path, key: &Path, now_s: u64) -> Result<(Arc<ServerConfig>, Facts), TlsError> {
    let (shown, key_shown) = (certificate.display(), key.display());
    let unreadable = |path: &Path, e: &pem::Error, form: &str| {
        let path = path.display();
        TlsError(if let pem::Error::Io(e) = e {
            format!("{path} cannot be read ({e}); name a file that the gateway's user may read")
        } else {
            format!("{path} is not PEM ({e}); name a file with -----BEGIN {form}----- in it")
        })
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|e| unreadable(certificate, &e, "CERTIFICATE"))?;
    let Some(first) = chain.first() else {
        return Err(TlsError(format!(
            "{shown} holds no certificate; name a file with -----BEGIN CERTIFICATE----- in it, the box's own \
             certificate first"
        )));
    };
    let facts = certificate::facts(first).map_err(|why| {
        TlsError(format!("the first certificate in {shown} cannot be used: {why}; ask for the file again"))
    })?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| match e {
        pem::Error::NoItemsFound => TlsError(format!(
            "{key_shown} holds no private key without a password; name a file with -----BEGIN PRIVATE KEY----- in it"
        )),
        pem::Error::Io(_)
        | pem::Error::MissingSectionEnd { .. }
        | pem::Error::IllegalSectionStart { .. }
        | pem::Error::Base64Decode(_)
        | pem::Error::SectionTooLarge
        | _ => unreadable(key, &e, "PRIVATE KEY"),
    })?;
    if facts.ends_s <= now_s {
        return Err(TlsError(expired(certificate, facts.ends_s)));
    }
    if facts.begins_s > now_s {
        // Sooner the clock of a board without a battery than the file: serving is worth a try.
        tracing::warn!("the certificate {shown} is valid from {} on only; check the clock", day(facts.begins_s));
    }
    match server_config(chain, secret) {
        Ok(config) => Ok((config, facts)),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(TlsError(format!(
            "the key {key_shown} does not belong to the certificate {shown}; name the key that the certificate was made \
             with, and put the box's own certificate first"
        ))),
        Err(e) => Err(TlsError(format!(
            "the certificate {shown} and the key {key_shown} cannot be used ({e}); use an RSA, ECDSA or Ed25519 key"
        ))),
    }
}

/// What to do about an own certificate that has less than 14 days to live.
#[must_use]
pub fn ending(certificate: &Path, ends_s: u64, now_s: u64) -> Option<String> {
    if ends_s <= now_s {
        return Some(format!("{}; then restart the gateway", expired(certificate, ends_s)));
    }
    let (shown, end) = (certificate.display(), day(ends_s));
    (ends_s - now_s < NOTICE_S)
        .then(|| format!("the certificate {shown} is valid until {end} only; renew it and restart the gateway"))
}

fn expired(certificate: &Path, ends_s: u64) -> String {
    format!(
        "the certificate {} is expired since {}; renew it, or take certificate and key out of [tls] to use the local \
         authority",
        certificate.display(),
        day(ends_s)
    )
}

fn day(unix_s: u64) -> String {
    let time = i64::try_from(unix_s).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    time.map_or_else(|| "long ago".to_owned(), |t| t.date().to_string())
}

/// How to serve with a certificate chain and its key. The names clients ask for do not matter: there is one certificate.
pub(super) fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts TLS connections. Each new handshake uses the newest configuration.
pub struct TlsListener {
    tcp: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
    oldest_first: VecDeque<AbortHandle>,
}

impl TlsListener {
    /// Serves TLS on a listening socket.
    #[must_use]
    pub fn new(tcp: TcpListener, config: watch::Receiver<Arc<ServerConfig>>) -> Self {
        TlsListener { tcp, config, handshakes: JoinSet::new(), oldest_first: VecDeque::new() }
    }

    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.oldest_first.retain(|handshake| !handshake.is_finished());
        if self.oldest_first.len() >= HANDSHAKES
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        let acceptor = TlsAcceptor::from(self.config.borrow().clone());
        self.oldest_first.push_back(self.handshakes.spawn(async move {
            match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => return Some((stream, peer)),
                Ok(Err(e)) => tracing::debug!("the handshake with {peer} failed: {e}"),
                Err(_) => tracing::debug!("the handshake with {peer} took longer than {PATIENCE:?}"),
            }
            None
        }));
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                (stream, peer) = Listener::accept(&mut self.tcp) => self.begin(stream, peer),
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(accepted)) = done {
                        return accepted;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::path::PathBuf;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    /// 2030-01-01.
    const NOW_S: u64 = 1_893_456_000;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        /// A certificate that is valid until a year after [`NOW_S`], and its key.
        fn good() -> Self {
            Self::valid_in(2029, 2031)
        }

        fn valid_in(from: i32, to: i32) -> Self {
            let files = Files { dir: tempfile::tempdir().unwrap() };
            let mut params = CertificateParams::new(vec!["gate.example".to_owned()]).unwrap();
            (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
            let key = KeyPair::generate().unwrap();
            files.write("cert.pem", &params.self_signed(&key).unwrap().pem());
            files.write("key.pem", &key.serialize_pem());
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.path(name), text).unwrap();
        }

        fn refusal(&self) -> String {
            own(&self.path("cert.pem"), &self.path("key.pem"), NOW_S).map(|(_, facts)| facts).unwrap_err().to_string()
        }
    }

    #[test]
    fn an_own_certificate_is_read_with_its_names() {
        let files = Files::good();
        let (_, facts) = own(&files.path("cert.pem"), &files.path("key.pem"), NOW_S).unwrap();
        assert!(facts.names.contains("gate.example"), "{facts:?}");
        assert_eq!(facts.fingerprint.len(), 32 * 3 - 1);
    }

    #[test]
    fn whatever_is_wrong_with_the_files_is_told_with_a_remedy() {
        let files = Files::good();
        let (certificate, key) =
            ["cert.pem", "key.pem"].map(|n| std::fs::read_to_string(files.path(n)).unwrap()).into();
        std::fs::remove_file(files.path("cert.pem")).unwrap();
        assert!(files.refusal().contains("cert.pem cannot be read"), "{}", files.refusal());
        files.write("cert.pem", "hello");
        assert!(files.refusal().contains("cert.pem holds no certificate; name a file"), "{}", files.refusal());
        files.write("cert.pem", &certificate.replace("END CERT", "END CRT"));
        assert!(files.refusal().contains("cert.pem is not PEM"), "{}", files.refusal());
        files.write("cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert!(files.refusal().contains("cert.pem cannot be used: it is no certificate"), "{}", files.refusal());

        files.write("cert.pem", &certificate);
        files.write("key.pem", &key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
        assert!(files.refusal().contains("key.pem holds no private key without a password"), "{}", files.refusal());
        files.write("key.pem", &KeyPair::generate().unwrap().serialize_pem());
        assert!(files.refusal().contains("key.pem does not belong to the certificate"), "{}", files.refusal());
        std::fs::remove_file(files.path("key.pem")).unwrap();
        assert!(files.refusal().contains("key.pem cannot be read"), "{}", files.refusal());
    }

    #[test]
    fn an_expired_certificate_is_refused_and_one_of_tomorrow_is_not() {
        let expired = Files::valid_in(2028, 2029);
        assert!(expired.refusal().contains("is expired since 2029-01-01; renew it"), "{}", expired.refusal());
        let early = Files::valid_in(2031, 2032);
        own(&early.path("cert.pem"), &early.path("key.pem"), NOW_S).unwrap();
    }

    #[test]
    fn people_are_told_to_renew_a_certificate_for_two_weeks_before_its_end_and_ever_after() {
        let told = |now_s| ending(Path::new("own.pem"), NOW_S, now_s);
        assert_eq!(told(NOW_S - NOTICE_S), None);
        let soon = told(NOW_S - NOTICE_S + 1).unwrap();
        assert!(soon.contains("own.pem is valid until 2030-01-01 only; renew it"), "{soon}");
        let over = told(NOW_S).unwrap();
        assert!(over.contains("own.pem is expired since 2030-01-01; renew it"), "{over}");
    }

    /// A listener for `gate.example` and a client that trusts it.
    async fn listener(files: &Files) -> (TlsListener, SocketAddr, TlsConnector) {
        let (config, _) = own(&files.path("cert.pem"), &files.path("key.pem"), NOW_S).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(files.path("cert.pem")).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = tcp.local_addr().unwrap();
        (TlsListener::new(tcp, watch::channel(config).1), at, TlsConnector::from(Arc::new(client)))
    }

    async fn says_hello(connector: TlsConnector, at: SocketAddr) -> std::io::Result<()> {
        let stream = TcpStream::connect(at).await?;
        connector.connect(ServerName::try_from("gate.example").unwrap(), stream).await?.write_all(b"hello").await
    }

    /// Valid by the system's clock, which the client goes by.
    fn valid_today() -> Files {
        Files::valid_in(2020, 2049)
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_keeps_nobody_out() {
        let files = valid_today();
        let (mut listener, at, connector) = listener(&files).await;
        let mut silent = Vec::new();
        for _ in 0..10 {
            silent.push(TcpStream::connect(at).await.unwrap());
        }
        let client = tokio::spawn(says_hello(connector, at));
        let (mut stream, _) = tokio::time::timeout(PATIENCE / 2, listener.accept()).await.unwrap();
        client.await.unwrap().unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn when_all_places_are_taken_the_oldest_handshake_ends() {
        let files = valid_today();
        let (mut listener, at, connector) = listener(&files).await;
        let accepting = tokio::spawn(async move {
            listener.accept().await;
            listener
        });
        let mut silent = Vec::new();
        for _ in 0..HANDSHAKES {
            silent.push(TcpStream::connect(at).await.unwrap());
        }
        says_hello(connector, at).await.unwrap();
        let listener = accepting.await.unwrap();
        assert!(listener.handshakes.len() <= HANDSHAKES);
        let ended = tokio::time::timeout(PATIENCE / 2, silent[0].read(&mut [0; 1])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "the oldest client is still there");
        let last = silent.last_mut().unwrap().try_read(&mut [0; 1]);
        assert_eq!(last.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_handshake_ends_when_patience_does() {
        let files = valid_today();
        let (mut listener, at, _) = listener(&files).await;
        let mut silent = TcpStream::connect(at).await.unwrap();
        let (begun, mut byte) = (tokio::time::Instant::now(), [0; 1]);
        tokio::select! {
            _ = listener.accept() => panic!("nobody shook hands"),
            ended = silent.read(&mut byte) => assert!(matches!(ended, Ok(0) | Err(_))),
        }
        assert!(begun.elapsed() >= PATIENCE && begun.elapsed() < 2 * PATIENCE);
    }
}
