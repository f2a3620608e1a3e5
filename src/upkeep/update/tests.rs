//! A system of paper: versions are words in files, some of them never become ready, and the power may go at any step.

use super::*;
use minisign::KeyPair;
use std::cell::{Cell, RefCell};
use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// What outlasts the power.
struct Paper {
    dir: tempfile::TempDir,
    installed: RefCell<Option<String>>,
    /// What the root has at every boot, if it forgets.
    factory: Option<String>,
    steps: Cell<usize>,
    cut_at: Cell<usize>,
    restarts: Cell<usize>,
    key: KeyPair,
}

#[derive(Clone)]
struct World(Rc<Paper>);

impl World {
    fn new(factory: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate_unencrypted_keypair().unwrap();
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        std::fs::write(dir.path().join("keys/dev.pub"), key.pk.to_box().unwrap().to_string()).unwrap();
        let paper = Paper {
            dir,
            installed: RefCell::new(Some(factory.unwrap_or("1.0").into())),
            factory: factory.map(str::to_owned),
            steps: Cell::new(0),
            cut_at: Cell::new(usize::MAX),
            restarts: Cell::new(0),
            key,
        };
        World(Rc::new(paper))
    }

    fn store(&self) -> Store {
        let at = |name: &str| self.0.dir.path().join(name);
        Store { dir: at("update"), kept: at("state/update"), keys: vec![at("keys")] }
    }

    fn deb(&self, text: &str) -> PathBuf {
        let path = self.0.dir.path().join(format!("{}.deb", text.replace(' ', "_")));
        std::fs::write(&path, text).unwrap();
        self.sign(&path, &self.0.key);
        path
    }

    fn sign(&self, path: &Path, key: &KeyPair) {
        let bytes = std::fs::read(path).unwrap();
        let signature = minisign::sign(None, &key.sk, Cursor::new(bytes), Some("test"), None).unwrap();
        std::fs::write(signature_of(path), signature.to_string()).unwrap();
    }

    fn version(&self) -> Option<String> {
        self.0.installed.borrow().clone()
    }

    fn step(&self) {
        self.0.steps.set(self.0.steps.get() + 1);
        assert!(self.0.steps.get() != self.0.cut_at.get(), "the power goes");
    }

    fn update(&mut self, deb: &Path) -> Result<Outcome, UpkeepError> {
        let store = self.store();
        prepare(self, &store, deb, false)?;
        carry_out(self, &store)
    }

    /// What `--back` does.
    fn back(&mut self) -> Outcome {
        let store = self.store();
        prepare_back(self, &store).unwrap();
        carry_out(self, &store).unwrap()
    }

    fn said(&self) -> String {
        standing(self, &self.store()).unwrap().join(" ")
    }

    /// The power comes back.
    fn boot(&mut self) -> Outcome {
        self.power_on().unwrap()
    }

    fn power_on(&mut self) -> Result<Outcome, UpkeepError> {
        self.0.cut_at.set(usize::MAX);
        self.forget();
        let store = self.store();
        resume(self, &store)
    }

    fn forget(&self) {
        if let Some(factory) = &self.0.factory {
            self.0.installed.replace(Some(factory.clone()));
            std::fs::remove_dir_all(self.store().dir).ok();
        }
    }

    /// Why the gateway says that its version is not the kept one.
    fn not_given(&self) -> Option<String> {
        site::not_given(&self.0.dir.path().join("state"))
    }
}

impl System for World {
    fn installed(&self) -> Result<Option<String>, String> {
        Ok(self.version())
    }

    fn describe(&self, deb: &Path) -> Result<Package, String> {
        let text = std::fs::read_to_string(deb).map_err(|e| e.to_string())?;
        let mut words = text.split(' ').map(str::to_owned);
        let mut next = || words.next().ok_or("no package".to_owned());
        Ok(Package { name: next()?, version: next()?, architecture: next()? })
    }

    fn architecture(&self) -> Result<String, String> {
        Ok("arm64".into())
    }

    fn compare(&self, one: &str, other: &str) -> Result<Ordering, String> {
        Ok(one.cmp(other))
    }

    fn pack_installed(&self, to: &Path) -> Result<(), String> {
        self.step();
        std::fs::write(to, format!("crosspatch {} arm64", self.version().unwrap())).map_err(|e| e.to_string())
    }

    fn install(&mut self, deb: &Path) -> Result<(), String> {
        let version = self.describe(deb)?.version;
        self.step();
        self.0.installed.replace(None); // half of it
        self.step();
        if version.contains("broken") {
            return Err("its script fails".into());
        }
        self.0.installed.replace(Some(version));
        self.step();
        Ok(())
    }

    fn becomes_ready(&mut self) -> Result<(), String> {
        self.step();
        self.0.restarts.set(self.0.restarts.get() + 1);
        match self.version() {
            Some(version) if !version.contains("bad") => Ok(()),
            _ => Err("it ended at once".into()),
        }
    }

    fn forgets(&self) -> bool {
        self.0.factory.is_some()
    }

    fn own(&self) -> Result<Option<String>, String> {
        Ok(self.0.factory.clone())
    }

    fn pack_own(&self, to: &Path) -> Result<(), String> {
        self.step();
        std::fs::write(to, format!("crosspatch {} arm64", self.0.factory.as_ref().unwrap())).map_err(|e| e.to_string())
    }
}

#[test]
fn a_good_version_is_kept_and_the_one_before_with_it() {
    let mut w = World::new(None);
    let deb = w.deb("crosspatch 2.0 arm64");
    assert_eq!(w.update(&deb).unwrap(), Outcome::Runs("2.0".into()));
    assert_eq!(w.boot(), Outcome::Nothing);
    let store = w.store();
    prepare_back(&w, &store).unwrap();
    assert_eq!(carry_out(&mut w, &store).unwrap(), Outcome::Runs("1.0".into()));
    prepare_back(&w, &store).unwrap();
    assert_eq!(carry_out(&mut w, &store).unwrap(), Outcome::Runs("2.0".into()), "and forth");
}

#[test]
fn a_version_that_does_not_become_ready_or_cannot_be_installed_gives_way_to_the_one_before() {
    for (version, why) in [("2.0-bad", "did not become ready: it ended at once"), ("2.0-broken", "cannot be installed")]
    {
        let mut w = World::new(None);
        let deb = w.deb(&format!("crosspatch {version} arm64"));
        let Outcome::Returned { to, why: told } = w.update(&deb).unwrap() else { panic!("{version} is kept") };
        assert!(to == "1.0" && told.contains(why), "{told}");
        assert_eq!(w.version().unwrap(), "1.0");
        assert!(w.said().contains("Version 1.0 is back"), "{}", w.said());
        assert!(prepare_back(&w, &w.store()).is_err(), "there is no way back to what never ran");
        let good = w.deb("crosspatch 3.0 arm64");
        assert_eq!(w.update(&good).unwrap(), Outcome::Runs("3.0".into()));
    }
}

#[test]
fn a_package_that_is_not_signed_by_a_key_of_the_box_or_does_not_fit_changes_nothing() {
    let w = World::new(None);
    let stranger = KeyPair::generate_unencrypted_keypair().unwrap();
    let (missing, foreign, changed, garbage) = (
        w.deb("crosspatch 2.1 arm64"),
        w.deb("crosspatch 2.2 arm64"),
        w.deb("crosspatch 2.3 arm64"),
        w.deb("crosspatch 2.4 arm64"),
    );
    std::fs::remove_file(signature_of(&missing)).unwrap();
    w.sign(&foreign, &stranger);
    std::fs::write(&changed, "crosspatch 6.6 arm64").unwrap();
    std::fs::write(signature_of(&garbage), "untrusted comment: no").unwrap();
    let other_machine = w.deb("crosspatch 2.0 amd64");
    let cases = [
        (missing, "is missing; a package is taken only with its signature"),
        (foreign, "signed by somebody whose key this box does not have"),
        (changed, "its signature is not of these bytes"),
        (garbage, "is no signature of minisign"),
        (other_machine, "this package is for amd64, and the box is arm64"),
        (w.deb("otherthing 2.0 arm64"), "this is a package of 'otherthing'"),
        (w.deb("crosspatch 1.0 arm64"), "version 1.0 is installed already"),
        (w.deb("crosspatch 0.9 arm64"), "version 0.9 is older than 1.0, which is installed"),
        (w.deb("nonsense"), "no package"),
    ];
    for (deb, told) in cases {
        let refused = prepare(&w, &w.store(), &deb, false).unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
        assert_eq!(w.store().journal(&w).unwrap(), Journal::default());
        let left: Vec<_> =
            std::fs::read_dir(w.store().dir).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        assert!(left.is_empty(), "{told}: {left:?}");
    }
    std::fs::remove_file(w.0.dir.path().join("keys/dev.pub")).unwrap();
    let no_key = prepare(&w, &w.store(), &w.deb("crosspatch 2.0 arm64"), false).unwrap_err().to_string();
    assert!(no_key.contains("this box has no key to check it by"), "{no_key}");
    assert_eq!(w.0.steps.get(), 0, "the system was not touched");
}

#[test]
fn an_older_version_is_installed_only_when_that_is_said() {
    let mut w = World::new(None);
    let deb = w.deb("crosspatch 0.9 arm64");
    let store = w.store();
    prepare(&w, &store, &deb, true).unwrap();
    for second in [prepare(&w, &store, &deb, true), prepare_back(&w, &store)] {
        assert!(second.unwrap_err().to_string().contains("another update runs"));
    }
    assert_eq!(carry_out(&mut w, &store).unwrap(), Outcome::Runs("0.9".into()));
}

/// Cuts the power at every step of an update to `version` in turn, and hands what is there after the next boot over.
fn cut_everywhere(factory: Option<&str>, version: &str, look: impl Fn(&str, usize)) {
    let steps = {
        let mut w = World::new(factory);
        let deb = w.deb(&format!("crosspatch {version} arm64"));
        w.update(&deb).unwrap();
        w.0.steps.get()
    };
    assert!(steps >= 5, "it packs, installs and looks: {steps}");
    let mut returned = false;
    for step in 1..=steps {
        let mut w = World::new(factory);
        let deb = w.deb(&format!("crosspatch {version} arm64"));
        w.0.cut_at.set(step);
        let cut = catch_unwind(AssertUnwindSafe(|| w.update(&deb)));
        assert!(cut.is_err(), "the power goes at step {step}");
        let phase = w.store().journal(&w).unwrap().phase;
        returned |= matches!(phase, Some(Phase::Returning { .. }));
        w.boot();
        let found = w.version().expect("a version is there, whole");
        look(&found, step);
        let journal = w.store().journal(&w).unwrap();
        assert_eq!(journal.phase, None, "step {step}");
        let told = phase.map(|phase| match phase {
            Phase::Trying { new, .. } => {
                format!("Version {found} is back: the power went before version {new} was ready.")
            }
            Phase::Returning { why, .. } => format!("Version {found} is back: {why}."),
        });
        assert_eq!(journal.last, told, "step {step}");
        let next = w.deb("crosspatch 9.0 arm64");
        assert_eq!(w.update(&next).unwrap(), Outcome::Runs("9.0".into()), "and the next update goes as ever");
        assert!(matches!(w.boot(), Outcome::Nothing | Outcome::Runs(_)));
        assert_eq!(w.version().unwrap(), "9.0");
    }
    assert_eq!(returned, version != "2.0", "it is known why the version before comes back");
}

#[test]
fn a_power_cut_at_any_step_leaves_the_version_before() {
    for factory in [None, Some("1.0")] {
        for version in ["2.0", "2.0-bad", "2.0-broken"] {
            cut_everywhere(factory, version, |found, step| assert_eq!(found, "1.0", "{version}, step {step}"));
        }
    }
}

#[test]
fn a_root_that_forgets_is_given_its_version_at_every_boot_unless_somebody_changed_the_package() {
    let mut w = World::new(Some("1.0"));
    let deb = w.deb("crosspatch 2.0 arm64");
    assert_eq!(w.update(&deb).unwrap(), Outcome::Runs("2.0".into()));
    let written = |w: &World| w.store().kept.join("journal.json").metadata().unwrap().ino();
    let before = written(&w);
    for _ in 0..2 {
        assert_eq!(w.boot(), Outcome::Runs("2.0".into()));
        assert_eq!(w.version().unwrap(), "2.0");
        assert_eq!(written(&w), before, "cards wear out");
    }
    std::fs::write(w.store().kept.join("journal.json"), "{").unwrap();
    assert_eq!(w.boot(), Outcome::Runs("2.0".into()), "words that were lost keep nothing from being given");
    let three = w.deb("crosspatch 3.0 arm64");
    w.0.cut_at.set(w.0.steps.get() + 2);
    catch_unwind(AssertUnwindSafe(|| w.update(&three))).unwrap_err();
    let why = "the power went before version 3.0 was ready".into();
    assert_eq!(w.boot(), Outcome::Returned { to: "2.0".into(), why });
    assert_eq!(w.version().unwrap(), "2.0");
    std::fs::write(w.store().kept_deb(), "crosspatch 6.6 arm64").unwrap();
    let refused = w.power_on().unwrap_err().to_string();
    assert!(refused.contains("not of these bytes") && refused.ends_with("version 1.0 is installed"), "{refused}");
    assert_eq!(w.version().unwrap(), "1.0", "the root's own");
    let told = w.not_given().unwrap();
    assert!(told.contains("not of these bytes") && told.ends_with("crosspatch update FILE.deb"), "{told}");
    let bad = w.deb("crosspatch 3.0-bad arm64");
    assert!(matches!(w.update(&bad).unwrap(), Outcome::Returned { .. }));
    assert_eq!(w.not_given().unwrap(), told, "that was no remedy");
    assert!(w.said().contains("not installed at this boot"), "{}", w.said());
    assert!(w.said().contains("The next boot starts version 1.0: the kept one is not taken"), "{}", w.said());
    assert_eq!(w.update(&deb).unwrap(), Outcome::Runs("2.0".into()), "all is well with a new copy");
    assert_eq!(w.not_given(), None);
    assert_eq!(w.boot(), Outcome::Runs("2.0".into()));
    assert_eq!(
        w.said(),
        "Version 2.0 is installed. The last update: Version 2.0 runs. It is kept on the data partition and installed anew at every boot."
    );
}

#[test]
fn a_root_that_forgets_knows_the_way_back_also_after_a_boot() {
    for booted in [false, true] {
        let mut w = World::new(Some("1.0"));
        let boot = |w: &mut World| booted.then(|| w.boot());
        for version in ["2.0", "3.0"] {
            let deb = w.deb(&format!("crosspatch {version} arm64"));
            assert_eq!(w.update(&deb).unwrap(), Outcome::Runs(version.into()));
            boot(&mut w);
        }
        for version in ["2.0", "3.0", "2.0"] {
            assert_eq!(w.back(), Outcome::Runs(version.into()), "back and forth; booted: {booted}");
            boot(&mut w);
            assert_eq!(w.version().unwrap(), version);
        }
        w.boot();
        assert_eq!(w.version().unwrap(), "2.0");
    }
}

#[test]
fn a_root_that_forgets_goes_back_to_its_own_version_and_forth() {
    for booted in [false, true] {
        let mut w = World::new(Some("1.0"));
        let boot = |w: &mut World| booted.then(|| w.boot());
        let (two, bad) = (w.deb("crosspatch 2.0 arm64"), w.deb("crosspatch 3.0-bad arm64"));
        w.update(&two).unwrap();
        boot(&mut w);
        assert!(matches!(w.update(&bad).unwrap(), Outcome::Returned { .. }));
        assert_eq!(w.back(), Outcome::Runs("1.0".into()), "not to what never ran");
        boot(&mut w);
        assert_eq!(w.version().unwrap(), "1.0");
        assert!(w.said().contains("It is the one that the card has by itself."), "{}", w.said());
        assert_eq!(w.back(), Outcome::Runs("2.0".into()));
        assert_eq!(w.boot(), Outcome::Runs("2.0".into()));
        assert_eq!(w.back(), Outcome::Runs("1.0".into()));
        assert_eq!(
            w.update(&bad).unwrap(),
            Outcome::Returned {
                to: "1.0".into(),
                why: "version 3.0-bad did not become ready: it ended at once".into()
            }
        );
        assert_eq!(w.boot(), Outcome::Nothing);
        assert!(w.said().contains("version 3.0-bad did not become ready"), "{}", w.said());
    }
}

#[test]
fn a_root_that_forgets_and_was_not_given_all_of_a_version_goes_back_to_its_own() {
    let mut w = World::new(Some("1.0"));
    let two = w.deb("crosspatch 2.0 arm64");
    w.update(&two).unwrap();
    std::fs::write(w.store().kept_deb(), "crosspatch 2.0-broken arm64").unwrap();
    w.sign(&w.store().kept_deb(), &w.0.key);
    let refused = w.power_on().unwrap_err().to_string();
    assert!(refused.contains("its script fails; ") && refused.ends_with("version 1.0 is installed"), "{refused}");
    assert_eq!(w.version().unwrap(), "1.0");
    assert!(w.not_given().unwrap().contains("its script fails"));
    w.update(&two).unwrap();
    // Installing it takes longer than it may, or the power goes.
    w.forget();
    w.0.cut_at.set(w.0.steps.get() + 2);
    let store = w.store();
    catch_unwind(AssertUnwindSafe(|| resume(&mut w, &store))).unwrap_err();
    assert!(w.not_given().unwrap().contains("installing it did not end"));
    assert_eq!((w.boot(), w.not_given()), (Outcome::Runs("2.0".into()), None));
}

#[test]
fn a_kept_version_that_is_there_already_is_not_looked_at() {
    let mut w = World::new(Some("1.0"));
    let two = w.deb("crosspatch 2.0 arm64");
    w.update(&two).unwrap();
    w.boot();
    let store = w.store();
    std::fs::remove_file(store.new_deb()).unwrap();
    std::fs::write(store.kept_deb(), "nobody reads this").unwrap();
    assert_eq!(resume(&mut w, &store).unwrap(), Outcome::Nothing);
    assert!(!store.new_deb().exists());
    w.power_on().unwrap_err();
    // As a version has kept it that wrote no word of it beside.
    std::fs::copy(&two, store.kept_deb()).unwrap();
    std::fs::remove_file(version_beside(&store.kept_deb())).unwrap();
    assert_eq!(w.boot(), Outcome::Runs("2.0".into()));
    assert_eq!(resume(&mut w, &store).unwrap(), Outcome::Nothing);
}

#[test]
fn what_is_kept_in_memory_only_is_told() {
    let mut w = World::new(Some("1.0"));
    std::fs::write(w.0.dir.path().join("state/in-memory.txt"), "the data partition is not there").unwrap();
    let two = w.deb("crosspatch 2.0 arm64");
    assert_eq!(w.update(&two).unwrap(), Outcome::Runs("2.0".into()));
    assert!(
        w.said().ends_with("What is kept for the next boot is not known: the data partition is not there."),
        "{}",
        w.said()
    );
}

#[test]
fn a_stick_has_its_newest_signed_package_for_this_machine_taken() {
    let w = World::new(None);
    let stick = w.0.dir.path();
    for text in ["crosspatch 2.0 arm64", "crosspatch 2.5 arm64", "crosspatch 3.0 amd64", "otherthing 4.0 arm64"] {
        w.deb(text);
    }
    std::fs::remove_file(signature_of(&w.deb("crosspatch 5.0 arm64"))).unwrap();
    let found = newest_in(&w, &w.store(), stick).unwrap();
    assert_eq!(w.describe(&found).unwrap().version, "2.5");
    let empty = tempfile::tempdir().unwrap();
    assert!(
        newest_in(&w, &w.store(), empty.path()).unwrap_err().to_string().contains("no signed package of crosspatch")
    );
}

#[test]
fn keys_are_those_of_the_package_and_of_the_owner_as_the_next_boot_has_them() {
    let keys = |root: &Path| {
        let dirs = ["usr/share/crosspatch", "etc/crosspatch"].map(|dir| root.join(dir)).into_iter();
        dirs.chain(["/boot/firmware".into()]).map(|dir| dir.join("update-keys")).collect::<Vec<_>>()
    };
    let on_card = tempfile::tempdir().unwrap();
    assert_eq!(signature::directories(true, on_card.path()), keys(on_card.path()));
    for here in [signature::directories(false, on_card.path()), signature::directories(true, Path::new("/nowhere"))] {
        assert_eq!(here, keys(Path::new("/")));
    }
    let packed = include_str!("../../../Cargo.toml");
    assert!(
        packed.contains("[\"update-keys/*\", \"usr/share/crosspatch/update-keys/\""),
        "the package brings the first"
    );
}
