use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program under test: the one that was built beside the test, or one that is built now.
///
/// `CARGO_BIN_EXE_planaria` is known to tests of its own package alone, so it is looked for where cargo puts it: in
/// the folder of the profile, above `deps` with the test itself. It is built by cargo in any case, which is quick
/// where nothing has changed, so that an old program is never tested; cargo keeps others out meanwhile.
pub fn planaria() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(named) = std::env::var_os("PLANARIA_BIN") {
            return named.into();
        }
        let test = std::env::current_exe().expect("a test has a file");
        let profile = test.ancestors().nth(2).expect("a test lies in a folder of a profile");
        build(profile);
        let program = profile.join(format!("planaria{}", std::env::consts::EXE_SUFFIX));
        assert!(program.exists(), "{} was not built", program.display());
        program
    })
}

fn build(profile: &Path) {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "planaria-node", "--bin", "planaria"]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(target) = profile.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    match profile.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => {}
        Some(name) => drop(cargo.args(["--profile", name])),
    }
    let built = cargo.status().expect("cargo can be run");
    assert!(built.success(), "the program cannot be built: {built}");
}
