//! The kernels on the CPU, for the tests: a program of C (host.c) that answers calls.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

static HOST: LazyLock<Mutex<Host>> = LazyLock::new(|| Mutex::new(Host::start()));

struct Host {
    to: ChildStdin,
    from: ChildStdout,
    _program: Child,
    _folder: tempfile::TempDir,
}

impl Host {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = compiled(folder.path());
        let mut program =
            Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
        Self { to, from, _program: program, _folder: folder }
    }
}

/// The program; with what watches its memory, where the compiler has that.
fn compiled(folder: &Path) -> PathBuf {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("layers/gpu");
    let program = folder.join("host");
    let compiler = std::env::var("CC").unwrap_or("cc".to_owned());
    let attempt = |watch: &[&str]| {
        let mut call = Command::new(&compiler);
        call.args(["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-x", "c"]).args(watch);
        call.arg("-o").arg(&program).arg(place.join("host.c")).arg("-lm").output()
    };
    let watched = attempt(&["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    if !watched.is_ok_and(|done| done.status.success()) {
        let done =
            attempt(&[]).expect("a C compiler, named by CC or cc, which the build needs too");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    program
}

/// The bytes of a kernel's result of `len` values of four bytes.
pub(super) fn answer(kernel: &str, numbers: [i32; 7], inputs: &[&[f32]], len: usize) -> Vec<u8> {
    let mut call = (kernel.len() as u32).to_ne_bytes().to_vec();
    call.extend(kernel.bytes());
    call.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
    for at in 0..3 {
        let values = inputs.get(at).copied().unwrap_or_default();
        call.extend((values.len() as u32).to_ne_bytes());
        call.extend(values.iter().flat_map(|value| value.to_ne_bytes()));
    }
    call.extend((len as u32).to_ne_bytes());
    let mut host = HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let mut result = vec![0; 4 * len];
    host.to.write_all(&call).and_then(|()| host.to.flush()).unwrap();
    host.from.read_exact(&mut result).expect("the kernel fails; its sanitizer has said how");
    result
}
