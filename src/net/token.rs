//! Access tokens: JWT, HS256 and nothing else, with an expiry (the wire's *Connection* section).

use crate::base::{ChannelId, Role, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// The shortest secret that may sign tokens, in bytes.
pub const MIN_SECRET: usize = 32;

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    user_id: String,
    user_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    global_role: Option<String>,
    event_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    /// The older spelling of `role`; it may stand beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_role: Option<String>,
    #[serde(default)]
    channel_ids: Vec<String>,
    exp: u64,
}

/// Who stands behind a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The participant.
    pub user: UserId,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Channels it may join.
    pub channels: Vec<ChannelId>,
}

/// Why a token was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Nothing came with the request.
    #[error("no token came with the request; open the link you were given again")]
    Missing,
    /// It does not hold together.
    #[error("the token is not valid ({0}); ask for a new link")]
    Invalid(String),
    /// It is for another event.
    #[error("the token is for event '{0}', not for this one; ask for a link to this event")]
    ForeignEvent(String),
    /// The secret's file cannot be used.
    #[error(
        "the token secret {path} cannot be used: {why}; give it 32 bytes or more, or delete it to have a new one made"
    )]
    Secret {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Makes and checks the tokens of one event.
pub struct Tokens {
    secret: Vec<u8>,
    event: String,
}

impl Tokens {
    /// Reads the secret of a state directory, or makes one that only its owner can read.
    ///
    /// # Errors
    /// If the file cannot be read or made, or is shorter than [`MIN_SECRET`].
    pub fn of_state_dir(dir: &Path, event: &str) -> Result<Self, TokenError> {
        let path = dir.join("token.secret");
        let broken = |why: String| TokenError::Secret { path: path.display().to_string(), why };
        let secret = match std::fs::read(&path) {
            Ok(secret) => secret,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let mut secret = vec![0; MIN_SECRET];
                getrandom::fill(&mut secret).map_err(|e| broken(e.to_string()))?;
                make_private(&path, &secret).map_err(|e| broken(e.to_string()))?;
                secret
            }
            Err(e) => return Err(broken(e.to_string())),
        };
        if secret.len() < MIN_SECRET {
            return Err(broken(format!("it has {} bytes", secret.len())));
        }
        Ok(Tokens { secret, event: event.to_owned() })
    }

    /// Signs a token that is valid until `exp` (seconds since 1970).
    ///
    /// # Errors
    /// If signing fails.
    pub fn sign(&self, identity: &Identity, exp: u64) -> Result<String, TokenError> {
        let claims = Claims {
            user_id: identity.user.to_string(),
            user_name: identity.name.clone(),
            global_role: Some(if identity.role == Role::Admin { "ADMIN" } else { "USER" }.to_owned()),
            event_id: self.event.clone(),
            role: Some(identity.role.as_str().to_owned()),
            event_role: Some(identity.role.as_str().to_owned()),
            channel_ids: identity.channels.iter().map(ToString::to_string).collect(),
            exp,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&self.secret))
            .map_err(|e| TokenError::Invalid(e.to_string()))
    }

    /// Checks a token: algorithm pinned, expiry required, this event only.
    ///
    /// # Errors
    /// If any of that does not hold.
    pub fn check(&self, token: &str) -> Result<Identity, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp"]);
        validation.validate_nbf = false; // F17
        validation.validate_aud = false;
        validation.leeway = 0;
        let claims = jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(&self.secret), &validation)
            .map_err(|e| TokenError::Invalid(e.to_string()))?
            .claims;
        if claims.event_id != self.event {
            return Err(TokenError::ForeignEvent(claims.event_id));
        }
        let role = match (claims.global_role.as_deref(), claims.role.or(claims.event_role).as_deref()) {
            (Some("ADMIN"), _) => Role::Admin,
            (_, Some("DISPATCH")) => Role::Dispatch,
            (_, _) => Role::General,
        };
        Ok(Identity {
            user: claims.user_id.into(),
            name: claims.user_name,
            role,
            channels: claims.channel_ids.into_iter().map(ChannelId::from).collect(),
        })
    }
}

fn make_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn someone() -> Identity {
        Identity { user: "u1".into(), name: "Uma".into(), role: Role::Dispatch, channels: vec!["ops".into()] }
    }

    #[test]
    fn a_token_comes_back_as_the_identity_it_was_made_for() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::of_state_dir(dir.path(), "demo").unwrap();
        let token = tokens.sign(&someone(), 4_000_000_000).unwrap();
        assert_eq!(Tokens::of_state_dir(dir.path(), "demo").unwrap().check(&token).unwrap(), someone());
    }

    #[test]
    fn expired_foreign_and_unsigned_tokens_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::of_state_dir(dir.path(), "demo").unwrap();
        assert!(matches!(tokens.check(&tokens.sign(&someone(), 1_000).unwrap()), Err(TokenError::Invalid(_))));
        let other = Tokens { secret: tokens.secret.clone(), event: "other".into() };
        let foreign = other.sign(&someone(), 4_000_000_000).unwrap();
        assert!(matches!(tokens.check(&foreign), Err(TokenError::ForeignEvent(_))));
        let wrong_key = Tokens { secret: vec![7; 32], event: "demo".into() }.sign(&someone(), 4_000_000_000).unwrap();
        assert!(matches!(tokens.check(&wrong_key), Err(TokenError::Invalid(_))));
        // {"alg":"none","typ":"JWT"} before the claims of a valid token, without a signature
        let valid = tokens.sign(&someone(), 4_000_000_000).unwrap();
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", valid.split('.').nth(1).unwrap());
        assert!(matches!(tokens.check(&unsigned), Err(TokenError::Invalid(_))));
    }
}
