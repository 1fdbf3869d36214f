//! `physicnet publish` and `physicnet tail` against a real broker.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use physicnet_stream::Time;

use crate::house::{MINUTE, frame, physicnet, run, start, store};

/// Where the brokers are. Without them a test has nothing to say: it passes at home, never in CI.
fn brokers() -> Option<String> {
    let found = std::env::var("KAFKA_BOOTSTRAP").ok().filter(|brokers| !brokers.is_empty());
    if found.is_none() {
        eprintln!(
            "no KAFKA_BOOTSTRAP: eval \"$(scripts/kafka start)\" or scripts/test; not tested"
        );
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI tests against a real Kafka");
    }
    found
}

/// A topic that no one else has.
fn topic(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("tools.{name}.{now}.{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of a topic from its beginning to its end.
fn tail(brokers: &str, topic: &str, more: &[&str]) -> Vec<String> {
    let all = [&["tail", topic, "--brokers", brokers, "--no-follow"], more].concat();
    text(&run(&all).stdout).lines().map(str::to_owned).collect()
}

/// What it says when it fails.
fn refused(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = physicnet().args(arguments).output().unwrap();
    let said = text(&stderr);
    assert_eq!(status.code(), Some(1), "{arguments:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// A file of `configs/kafka` with other names in it, which no other run of it has.
fn shipped(name: &str, folder: &Path, names: &[(&str, &str)]) -> PathBuf {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/kafka");
    let mut text = std::fs::read_to_string(configs.join(name)).unwrap();
    for (shipped, own) in names {
        assert!(text.contains(shipped), "{name} has no {shipped}");
        text = text.replace(shipped, own);
    }
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Asks a job to end, which it does well.
fn end(job: Child) {
    let asked = Command::new("kill").args(["-INT", &job.id().to_string()]).status().unwrap();
    assert!(asked.success());
    let Output { status, stderr, .. } = job.wait_with_output().unwrap();
    assert!(status.success(), "{}", text(&stderr));
}

/// A store of six frames a minute apart, one pixel of each not measured.
fn six(path: &Path) {
    let series = (0..6).map(|step| {
        let mut frame = frame(step, step as Time * MINUTE, 0.0);
        (frame.data[0], frame.data[1], frame.data[2]) = (f32::NAN, -7.0, 9.5);
        frame
    });
    store(path, &series.collect::<Vec<_>>());
}

#[test]
fn a_store_goes_through_a_topic_in_every_format() {
    let Some(brokers) = brokers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("radar.zarr");
    six(&path);
    for format in ["da00", "ad00", "json"] {
        let topic = topic(format);
        let (path, to) = (path.to_str().unwrap(), ["--brokers", &brokers, "--topic", &topic]);
        let publish =
            [&["publish", path, "--format", format, "--from", "1970-01-01T00:01"], &to[..]]
                .concat();
        let said = text(&run(&publish).stdout);
        assert!(said.contains("radar.zarr: 5 frames, ") && said.contains("MB/s"), "{said}");

        let lines = tail(&brokers, &topic, &["--format", format]);
        assert_eq!(lines.len(), 5, "{lines:#?}");
        for (at, line) in lines.iter().enumerate() {
            let begin = format!("radar  1970-01-01T00:0{}:00Z  ", at + 1);
            assert!(line.starts_with(&begin), "{line}");
            for part in [" 12x17 float", "min -7.000 ", " max 9.500", "0.49 % missing"] {
                assert!(line.contains(part), "{part} is not in: {line}");
            }
            assert!(line.contains(&format!("  0@{at}  ")) && line.ends_with(" ago"), "{line}");
        }
        assert_eq!(tail(&brokers, &topic, &["--format", format, "--count", "2"]).len(), 2);
        let latest = tail(&brokers, &topic, &["--format", format, "--from", "latest"]);
        assert_eq!(latest, [format!("topic {topic}: nothing to show")]);
    }
}

#[test]
fn simulated_sensors_keep_their_order_in_their_partitions() {
    let Some(brokers) = brokers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("simulate.yaml");
    let text = "field: {kind: rain, height: 12, width: 20}\nsensors: 5\nframes: 7\ncadence: 60s\n";
    std::fs::write(&file, text).unwrap();
    let (file, topic) = (file.to_str().unwrap(), topic("rain"));
    let to = ["--brokers", &brokers, "--topic", &topic, "--partitions", "3"];
    run(&[&["publish", file, "--sensor", "gauge", "--rate", "200"], &to[..]].concat());

    let lines = tail(&brokers, &topic, &[]);
    assert_eq!(lines.len(), 35, "{lines:#?}");
    for sensor in 0..5 {
        let of = format!("gauge/{sensor}");
        let mine: Vec<_> = lines.iter().filter(|line| line.starts_with(&of)).collect();
        let minutes: Vec<_> = mine.iter().filter_map(|line| line.split("  ").nth(1)).collect();
        let expected: Vec<_> = (0..7).map(|m| format!("2000-01-01T00:0{m}:00Z")).collect();
        assert_eq!(minutes, expected);
        assert!(mine.iter().all(|line| line.contains("precip_rate 12x20")), "{mine:#?}");
        assert_eq!(tail(&brokers, &topic, &["--sensor", &of]).len(), 7);
    }

    let said =
        refused(&["publish", file, "--brokers", &brokers, "--topic", &topic, "--partitions", "4"]);
    assert!(said.contains("with 3 partitions and not 4"), "{said}");
    let said = refused(&["publish", file, "--brokers", &brokers, "--topic", &topic, "--repeat"]);
    assert!(said.contains("--repeat is for stores"), "{said}");
}

#[test]
fn a_topic_is_followed_from_before_it_is_there() {
    let Some(brokers) = brokers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("radar.zarr");
    six(&path);
    let topic = topic("followed");
    let reader = start(&["tail", &topic, "--brokers", &brokers, "--count", "8"]);
    for _ in 0..2 {
        run(&["publish", path.to_str().unwrap(), "--brokers", &brokers, "--topic", &topic]);
    }
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let offsets: Vec<_> = said.lines().filter_map(|line| line.split("  ").nth(6)).collect();
    assert_eq!(offsets, (0..8).map(|at| format!("0@{at}")).collect::<Vec<_>>());
}

#[test]
fn pictures_are_drawn_as_files_and_in_the_terminal() {
    let Some(brokers) = brokers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("radar.zarr"), folder.path().join("out"));
    six(&path);
    let topic = topic("pictures");
    run(&["publish", path.to_str().unwrap(), "--brokers", &brokers, "--topic", &topic]);
    let drawn = tail(&brokers, &topic, &["--picture", out.to_str().unwrap(), "--show"]);
    assert_eq!(drawn.iter().filter(|line| line.starts_with("radar  ")).count(), 6);
    // Twenty rows of half blocks, as large as they fit without a terminal to ask.
    let blocks: Vec<_> = drawn.iter().filter(|line| line.contains('▀')).collect();
    assert_eq!(blocks.len(), 6 * 20);
    assert!(blocks[0].starts_with("\x1b[38;2;150;150;150m"), "{}", blocks[0]);

    let mut files: Vec<_> = std::fs::read_dir(&out).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 6, "{files:?}");
    assert!(files[0].ends_with("radar-19700101T000000Z-0-0.png"), "{files:?}");
    for file in files {
        let decoder =
            png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&file).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        // Every pixel is a square of nine: the one that was not measured is grey.
        assert_eq!(rgb.chunks(3).filter(|pixel| *pixel == [150; 3]).count(), 81);
        assert!(info.width >= 17 * 9 && info.height >= 12 * 9, "{} x {}", info.width, info.height);
    }
}

#[test]
fn what_is_no_frame_is_told_and_a_dead_letter_says_why() {
    let Some(brokers) = brokers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("radar.zarr");
    six(&path);
    let (at, topic) = (path.to_str().unwrap(), topic("poison"));
    run(&["publish", at, "--brokers", &brokers, "--topic", &topic, "--format", "json"]);
    let lines = tail(&brokers, &topic, &[]);
    assert_eq!(lines.len(), 6);
    let told = "radar  not readable: no da00 message: it looks like JSON; is the format json?  ";
    assert!(lines.iter().all(|line| line.starts_with(told)), "{lines:#?}");

    let job = folder.path().join("job.yaml");
    let text = format!(
        "name: {topic}\nsources: [{{type: kafka, cluster: {{brokers: '{brokers}'}}, \
         topics: ['{topic}'], like: '{at}', follow: false}}]\n\
         model: {{untrained: {{history: 3, horizon: 2, quantization: none}}}}\n\
         sinks: [{{type: kafka, cluster: {{brokers: '{brokers}'}}, topic: '{topic}.out'}}]\n"
    );
    std::fs::write(&job, text).unwrap();
    run(&["run", job.to_str().unwrap()]);
    let lines = tail(&brokers, &format!("physicnet.{topic}.dead-letters"), &[]);
    assert_eq!(lines.len(), 6, "{lines:#?}");
    for (at, line) in lines.iter().enumerate() {
        assert!(line.starts_with("radar  dead letter: undecodable: "), "{line}");
        assert!(line.contains(&format!("(it was {topic}/0@{at})")), "{line}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let Some(brokers) = brokers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("radar.zarr");
    six(&path);
    let (at, absent) = (path.to_str().unwrap(), topic("absent"));
    // Nothing listens at port 1.
    let nobody = "127.0.0.1:1";
    for arguments in [
        &["publish", at, "--brokers", nobody, "--topic", "t"][..],
        &["tail", "t", "--brokers", nobody],
    ] {
        let said = refused(arguments);
        assert!(said.contains(nobody) && said.contains("no broker answers"), "{said}");
    }
    let said = refused(&["tail", &absent, "--brokers", &brokers, "--no-follow"]);
    assert!(said.contains(&absent) && said.contains("is not there"), "{said}");
    let said = refused(&["publish", "absent.zarr", "--brokers", &brokers, "--topic", &absent]);
    assert!(said.contains("absent.zarr: is not there"), "{said}");
    let said = refused(&["tail", &absent, "--brokers", &brokers, "--from", "yesterday"]);
    assert!(said.contains("earliest, latest or a time"), "{said}");
    let output = physicnet().env_remove("KAFKA_BOOTSTRAP").args(["tail", "t"]).output().unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("--brokers") && said.contains("--cluster"), "{said}");
}

#[test]
fn what_brokers_or_memory_would_not_take_is_refused_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.yaml");
    let validate = |job: &str, brokers: &str, source: &str, sink: &str| {
        let text = format!(
            "name: {job}\nsources: [{{type: kafka, cluster: {{brokers: '{brokers}'}}, cadence: 60s, \
             {source}}}]\nmodel: {{untrained: {{history: 3, horizon: 2, quantization: none}}}}\n\
             sinks: [{{type: kafka, cluster: {{brokers: '{brokers}'}}, {sink}}}]\n"
        );
        std::fs::write(&file, text).unwrap();
        refused(&["validate", file.to_str().unwrap()])
    };
    let grid = |y: &str| {
        format!("topics: [f], grid: {{variables: [{{name: u}}], y: {y}, x: {{count: 16}}}}")
    };
    let more = |more: &str| format!("{}, {more}", grid("{count: 16}"));
    let topics = |topics: &str| more("").replace("[f]", topics);
    // Nobody is asked before.
    for (source, told) in [
        (grid("{count: 1000000000}"), "grid.y.count: 1000000000 pixels; an axis has at most"),
        (grid("{count: 16, step: 0}"), "grid.y.step: 0; write how far"),
        (grid("{count: 16, step: .nan}"), "sources[0].grid.y.step: no finite number"),
        (grid("{count: 16, first: .inf}"), "sources[0].grid.y.first: no finite number"),
        (grid("{count: 1048577}"), "grid.y.count: 1048577 pixels"),
        (grid("{count: 1048576}").replace("count: 16", "count: 17"), "largest_message_mib: 16 MiB"),
        (topics("[]"), "topics: name at least one"),
        (topics("['f 1']"), "topics: \"f 1\" is no name of a topic"),
        (topics("[.]"), "topics: no topic can be called ."),
        (topics("[f, g, f]"), "topics: f is named twice"),
        (more("sensors: []"), "sensors: names none; leave it out"),
        (more("sensors: [a, a]"), "sensors: a is named twice"),
        (more("most_sensors: 0"), "most_sensors: 0 would take no sensor"),
    ] {
        let said = validate("ours", "127.0.0.1:1", &source, "topic: out");
        assert!(said.contains(told), "{told}: {said}");
    }
    for command in ["publish", "tail"] {
        let arguments: &[&str] = match command {
            "publish" => {
                &[concat!(env!("CARGO_MANIFEST_DIR"), "/configs/kafka/simulate.yaml"), "--topic"]
            }
            _ => &[],
        };
        let brokers = ["f 1", "--brokers", "127.0.0.1:1"];
        let said = refused(&[&[command], arguments, &brokers].concat());
        assert!(said.contains("topic: \"f 1\" is no name of a topic"), "{said}");
    }
    let Some(brokers) = brokers() else { return };
    let (store, frames) = (folder.path().join("radar.zarr"), topic("frames"));
    six(&store);
    run(&["publish", store.to_str().unwrap(), "--brokers", &brokers, "--topic", &frames]);
    let source = topics(&format!("['{frames}']"));
    let long = "j".repeat(240);
    for (job, sink, told) in [
        ("a job", "topic: out", "name: \"a job\" is no name of a topic"),
        (&long, "topic: out", "name: physicnet.jjj"),
        ("ours", "topic: 'out '", "topic: \"out \" is no name of a topic"),
        ("ours", "dead_letters: ''", "dead_letters: is empty; name a topic"),
        ("ours", "progress: a/b", "progress: \"a/b\" is no name of a topic"),
    ] {
        let said = validate(job, &brokers, &source, sink);
        assert!(said.contains(told), "{told}: {said}");
    }
}

#[test]
fn the_commands_of_the_guide_do_what_it_says() {
    if brokers().is_none() {
        return;
    }
    let (root, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().unwrap());
    let tag = topic("guide");
    let [frames, forecasts] = ["frames", "forecasts"].map(|name| format!("{tag}.{name}"));
    let job = shipped(
        "topic.yaml",
        folder.path(),
        &[
            ("\nname: flow\n", &format!("\nname: {tag}\n")),
            ("topics: [frames]", &format!("topics: [{frames}]")),
            ("topic: forecasts", &format!("topic: {forecasts}")),
        ],
    );
    let guide = std::fs::read_to_string(root.join("docs/kafka.md")).unwrap();
    let block = guide.split("```").find(|block| block.contains("scripts/kafka start")).unwrap();
    // The broker is there already, and the program is this one.
    let commands: Vec<&str> = block.lines().filter(|line| line.starts_with("physicnet")).collect();
    assert_eq!(commands.len(), 4, "{block}");
    let commands = commands
        .join("\n")
        .replace("configs/kafka/topic.yaml", job.to_str().unwrap())
        .replace("--topic frames", &format!("--topic {frames}"))
        .replace("tail forecasts", &format!("tail {forecasts}"))
        .replace("physicnet.flow.", &format!("physicnet.{tag}."));
    let program = Path::new(env!("CARGO_BIN_EXE_physicnet")).parent().unwrap().display();
    let script = format!("set -m\nexport PATH={program}:$PATH\n{commands}\nkill %1\nwait %1\n");
    let output = Command::new("bash")
        .args(["-euc", &script])
        .current_dir(root)
        .env("RUST_LOG", "warn")
        .env("RAYON_NUM_THREADS", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{script}: {}{said}", text(&output.stderr));
    let told = said.lines().filter(|line| line.starts_with("flow/")).collect::<Vec<_>>();
    assert_eq!(told.len(), 124);
    assert!(
        told.iter().all(|line| line.contains(" +5 min to +50 min  vorticity 10x64x64 float32"))
    );
    assert!(
        said.contains(&format!("topic physicnet.{tag}.dead-letters: nothing to show")),
        "{said}"
    );
}

#[test]
fn the_shipped_job_with_stores_fills_both() {
    let Some(brokers) = brokers() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (at, tag) = (folder.path(), topic("stores"));
    let [frames, forecasts] = ["frames", "forecasts"].map(|name| format!("{tag}.{name}"));
    let job = shipped(
        "topic-and-zarr.yaml",
        at,
        &[
            ("\nname: flow-and-stores\n", &format!("\nname: {tag}\n")),
            ("topics: [frames]", &format!("topics: [{frames}]")),
            ("topic: forecasts-of-stores", &format!("topic: {forecasts}")),
            ("out/kafka/", &format!("{}/", at.display())),
            ("configs/demo/", concat!(env!("CARGO_MANIFEST_DIR"), "/configs/demo/")),
        ],
    );
    let simulate = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/kafka/simulate.yaml");
    run(&["publish", simulate, "--brokers", &brokers, "--topic", &frames]);
    let job = start(&["run", job.to_str().unwrap()]);
    let told = run(&["tail", &forecasts, "--brokers", &brokers, "--count", "124"]);
    assert_eq!(text(&told.stdout).lines().filter(|line| line.starts_with("flow/")).count(), 124);
    end(job);
    for sensor in 0..4 {
        let root = std::fs::read(at.join(format!("flow_{sensor}.zarr/zarr.json"))).unwrap();
        let root: serde_json::Value = serde_json::from_slice(&root).unwrap();
        let times = &root["consolidated_metadata"]["metadata"]["time"];
        assert_eq!(times["shape"], serde_json::json!([31]), "flow/{sensor}");
    }
}

#[test]
fn the_shipped_job_of_a_secured_cluster_is_let_in() {
    let Some(brokers) = brokers() else { return };
    let names = ["KAFKA_SASL_BOOTSTRAP", "KAFKA_CA", "KAFKA_PASSWORD_FILE"];
    let [Ok(sasl), Ok(ca), Ok(password)] = names.map(std::env::var) else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "without {names:?}; run scripts/test"
        );
        eprintln!("without {names:?} nothing is tested here; scripts/test starts a broker");
        return;
    };
    if !cfg!(feature = "tls") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (at, tag) = (folder.path(), topic("secured"));
    let of = |name: &str| format!("{tag}.{name}");
    let job = shipped(
        "secured.yaml",
        at,
        &[
            ("\nname: radar\n", &format!("\nname: {tag}\n")),
            ("radar.frames", &of("frames")),
            ("radar.forecasts", &of("forecasts")),
            ("radar.dead-letters", &of("dead-letters")),
            ("radar.progress", &of("progress")),
            (
                "checkpoint: ${CHECKPOINT:-radar.safetensors}",
                "untrained: {history: 3, horizon: 2, quantization: none}",
            ),
        ],
    );
    let (rain, radar) = (at.join("rain.yaml"), at.join("radar.zarr"));
    let field = "field: {kind: rain, height: 16, width: 16}\nsensors: 1\nframes: 6\ncadence: 60s\n";
    std::fs::write(&rain, field).unwrap();
    let store = radar.to_str().unwrap();
    run(&["simulate", rain.to_str().unwrap(), store]);
    run(&["publish", store, "--brokers", &brokers, "--topic", &of("frames")]);
    let job = physicnet()
        .args(["run", job.to_str().unwrap()])
        .envs([("KAFKA_BOOTSTRAP", &sasl), ("KAFKA_CA", &ca), ("KAFKA_PASSWORD_FILE", &password)])
        .env("RADAR", store)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told = run(&["tail", &of("forecasts"), "--brokers", &brokers, "--count", "4"]);
    assert_eq!(text(&told.stdout).lines().filter(|line| line.starts_with("radar  ")).count(), 4);
    end(job);
}
