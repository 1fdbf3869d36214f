//! What takes a process of its own: to be killed, to be somebody else, to meet a store in trouble.
//! The process is this program of tests again, told by the environment what to do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Map;

use super::cloud::{bits, bucket, objects, small, write_all};
use super::{frame, grid, xarray};
use crate::zarr::{Archive, ArchiveWriter, ZarrSink, ZarrSource, progress};

/// What a process is to do, and with which places.
const ERRAND: &str = "PHYSICNET_ERRAND";
/// Forecasts of an errand.
const COUNT: u64 = 24;

/// A process for `errand`.
fn process(errand: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["zarr::tests::processes::errand", "--exact", "--nocapture"]);
    command.env(ERRAND, errand.join("\n")).env("RUST_BACKTRACE", "0");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The other side: nothing to do but in a process that was sent.
#[test]
fn errand() {
    let Ok(errand) = std::env::var(ERRAND) else { return };
    match errand.lines().collect::<Vec<_>>()[..] {
        ["write", url] => write_all(Path::new(url), COUNT, 1, Duration::from_millis(10)).unwrap(),
        ["open", url] => drop(Archive::open(&ZarrSource::new(url)).unwrap()),
        ["same", one, other] => {
            let open = |path: &str| Archive::open(&ZarrSource::new(path)).unwrap();
            let (one, other) = (open(one), open(other));
            assert_eq!(one.times(0), other.times(0));
            assert_eq!(bits(&one), bits(&other));
        }
        _ => panic!("{errand}"),
    }
}

fn succeeds(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// What it says when it fails.
fn fails(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(!status.success(), "{said}");
    said
}

#[test]
fn killed_again_and_again_it_ends_as_the_same_objects() {
    let Some(url) = bucket("") else { return };
    let (whole, often) = (url.join("whole.zarr"), url.join("often.zarr"));
    write_all(&whole, COUNT, 1, Duration::ZERO).unwrap();
    let mut kills = 0;
    loop {
        let mut child = process(&["write", often.to_str().unwrap()]).spawn().unwrap();
        let (begun, patience) = (Instant::now(), Duration::from_millis(40 + 40 * kills));
        let mut ended = None;
        while ended.is_none() && (begun.elapsed() < patience || kills > 20) {
            ended = child.try_wait().unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        if ended.is_some() {
            succeeds(&child.wait_with_output().unwrap());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 3, "{kills}");
    assert!(objects(&often) == objects(&whole), "killed {kills} times");
}

/// A server before the server, which answers some requests as a store in trouble does; its
/// address, and how often it did.
fn trouble(upstream: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let faults = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&faults);
    thread::spawn(move || {
        for (n, client) in listener.incoming().flatten().enumerate() {
            let (upstream, count) = (upstream.clone(), Arc::clone(&count));
            thread::spawn(move || drop(serve(n, client, &upstream, &count)));
        }
    });
    (address, faults)
}

/// One request, passed on or not.
fn serve(
    n: usize,
    mut client: TcpStream,
    upstream: &str,
    faults: &AtomicUsize,
) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let fault = n % 15;
    faults.fetch_add(usize::from([4, 9, 14].contains(&fault)), Ordering::Relaxed);
    if fault == 4 {
        // What is not read to its end is reset.
        client.set_read_timeout(Some(Duration::from_millis(50)))?;
        let _ = client.read_to_end(&mut Vec::new());
        let answer = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(answer);
    }
    if fault == 9 {
        // Longer than anybody waits.
        thread::sleep(Duration::from_secs(3));
        return Ok(());
    }
    let mut server = TcpStream::connect(upstream)?;
    // One request a connection, so that every request may meet with a fault.
    let line = head.windows(2).position(|pair| pair == b"\r\n").unwrap_or(0) + 2;
    head.splice(line..line, *b"Connection: close\r\n");
    server.write_all(&head)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let sent = thread::spawn(move || std::io::copy(&mut from, &mut to));
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    // The server has done it, and the client does not hear of it.
    let until = if fault == 14 { answer.len().min(20) } else { answer.len() };
    client.write_all(&answer[..until])?;
    client.shutdown(std::net::Shutdown::Both)?;
    let _ = sent.join();
    Ok(())
}

#[test]
fn a_store_in_trouble_is_asked_again() {
    let Some(url) = bucket("") else { return };
    let (whole, far, source) =
        (url.join("whole.zarr"), url.join("far.zarr"), url.join("source.zarr"));
    write_all(&whole, COUNT, 1, Duration::ZERO).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("source.zarr");
    for path in [&local, &source] {
        archive(path, 200);
    }
    let upstream = std::env::var("AWS_ENDPOINT_URL").unwrap();
    let (address, faults) = trouble(upstream.trim_start_matches("http://").to_owned());
    let far_url = far.to_str().unwrap();
    let same = ["same", local.to_str().unwrap(), source.to_str().unwrap()];
    for errand in [&["write", far_url][..], &same] {
        let mut command = process(errand);
        command.env("AWS_ENDPOINT_URL", &address).env("AWS_TIMEOUT", "1s");
        succeeds(&command.output().unwrap());
    }
    let faults = faults.load(Ordering::Relaxed);
    assert!(faults > 20, "{faults}");
    assert!(objects(&far) == objects(&whole));
}

/// An archive of `frames` frames.
fn archive(path: &Path, frames: u64) {
    let grid = grid(5, 7);
    let mut writer = ArchiveWriter::create(path, &grid, None, Map::new()).unwrap();
    (0..frames).for_each(|at| writer.append(0, &frame("", &grid, at)).unwrap());
    writer.finish().unwrap();
}

#[test]
fn what_is_wrong_with_a_url_is_said() {
    let Some(url) = bucket("none.zarr") else { return };
    let store = url.to_str().unwrap();
    let open = |url: &str, change: &dyn Fn(&mut Command)| {
        let mut command = process(&["open", url]);
        change(&mut command);
        let said = fails(command);
        let (scheme, rest) = url.split_once("://").unwrap();
        let bucket = format!("{scheme}://{}", rest.split('/').next().unwrap());
        assert!(said.contains(&bucket), "{said}");
        said
    };
    let as_it_is = |_: &mut Command| {};
    let said = open(store, &as_it_is);
    assert!(said.contains(store) && said.contains("is not there"), "{said}");
    let said = open("s3://nobodys-bucket/a.zarr", &as_it_is);
    assert!(said.contains("there is no such bucket"), "{said}");
    let said = open(store, &|command| {
        command.env("AWS_SECRET_ACCESS_KEY", "wrong");
    });
    assert!(said.contains("refused") && said.contains("AWS_SECRET_ACCESS_KEY"), "{said}");
    let said = open(store, &|command| {
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    });
    assert!(said.contains("no credentials") && said.contains("AWS_SKIP_SIGNATURE"), "{said}");
    let said = open(store, &|command| {
        command.env_remove("AWS_ALLOW_HTTP");
    });
    assert!(said.contains("AWS_ALLOW_HTTP=true"), "{said}");
    // A port on which nobody listens.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}");
    let said = open(store, &|command| {
        command.env("AWS_ENDPOINT_URL", &closed);
    });
    assert!(said.contains("nobody answers") && said.contains("AWS_ENDPOINT_URL"), "{said}");
    let said = open("ftp://host/a.zarr", &as_it_is);
    assert!(said.contains("s3://, gs:// or https://"), "{said}");
}

#[test]
fn what_xarray_appends_to_a_bucket_is_seen_whole() {
    const FRAMES: usize = 15;
    let Some(url) = bucket("s.zarr") else { return };
    let growing = ["growing.py", url.to_str().unwrap(), "15", "4", "0.1"];
    let Some(mut writer) = xarray::python(&growing) else { return };
    let mut writer = writer.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "begun");
    let (cadence, follow) = (Some("60s".into()), true);
    let mut archive =
        Archive::open(&ZarrSource { cadence, follow, ..ZarrSource::new(&url) }).unwrap();
    let (begun, mut seen, mut lengths) = (Instant::now(), 0, 0);
    while seen < FRAMES {
        assert!(begun.elapsed() < Duration::from_secs(90), "{seen} frames");
        let length = archive.times(0).len();
        lengths += usize::from(length > seen);
        // Each frame as soon as it is told of.
        for step in seen..length {
            let data = archive.read(0, step).unwrap().data;
            for (i, value) in data.into_iter().enumerate() {
                let (y, x, step) = ((i / 17) as f32, (i % 17) as f32, step as f32);
                let expected = (0.6 * (x - step)).sin() * (0.4 * y + 0.2 * step).cos();
                assert!((value - expected).abs() < 1e-5, "{value}, not {expected}");
            }
        }
        seen = length;
        if let Ok(Some(now)) = archive.reopen() {
            archive = now;
        }
    }
    assert!(lengths > 3, "seen {lengths} times");
    assert!(writer.wait().unwrap().success());
}

/// Python's server over a folder, with TLS where there is a certificate.
fn server(python: Command, folder: &Path, certificate: Option<&Path>) -> (Child, String) {
    const CODE: &str = "\
import functools, http.server, ssl, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_): pass
handler = functools.partial(Handler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2] + '/cert.pem', sys.argv[2] + '/key.pem')
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
";
    let mut command = Command::new(python.get_program());
    command.args(["-c", CODE]).arg(folder).args(certificate).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let scheme = if certificate.is_some() { "https" } else { "http" };
    (child, format!("{scheme}://localhost:{}", port.trim()))
}

#[test]
fn a_web_server_is_read_and_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let tls: PathBuf = at.join("tls");
    std::fs::create_dir(&tls).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(&tls)
        .output()
        .unwrap();
    succeeds(&made);
    let local = at.join("s.zarr");
    archive(&local, 40);
    for certificate in [None, Some(&*tls)] {
        let Some(python) = xarray::python(&[]) else { return };
        let (mut server, url) = server(python, at, certificate);
        let store = format!("{url}/s.zarr");
        let trusting = |errand: &[&str]| {
            let mut command = process(errand);
            command.env("SSL_CERT_FILE", tls.join("cert.pem"));
            command
        };
        let same = ["same", local.to_str().unwrap(), &store];
        succeeds(&trusting(&same).output().unwrap());
        let said = fails(trusting(&["open", &format!("{url}/none.zarr")]));
        assert!(said.contains("cannot be listed over HTTP"), "{said}");
        if certificate.is_some() {
            // Whom nobody vouches for is not trusted.
            let said = fails(process(&["open", &store]));
            assert!(said.contains("certificate"), "{said}");
        } else {
            let sink = ZarrSink::new(format!("{url}/out.zarr"));
            let known = super::catalogue(&["a"], &small());
            let said = progress(&sink, &known).unwrap_err().to_string();
            assert!(said.contains("can only be read") && said.contains("s3://"), "{said}");
        }
        server.kill().unwrap();
        server.wait().unwrap();
    }
}
