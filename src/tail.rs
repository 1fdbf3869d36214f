//! What is in a topic: a line for every frame, forecast or dead letter, and a picture if wanted.
//!
//! The messages are anyone's: what they say is escaped and cut before it is shown.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use physicnet_connectors::kafka::format::{Described, Format, describe, source_name};
use physicnet_connectors::kafka::{Cluster, Look, Seen, Tail as Topic};
use physicnet_stream::{Stop, Time, format_time};

use crate::render::{Panel, Row, Shade, blocks, draw, resized};

/// How long to wait for a message before looking whether to stop.
const WAIT: Duration = Duration::from_millis(100);
/// How soon to ask again for a topic that is not there.
const AGAIN: Duration = Duration::from_millis(500);
/// The longest side of a panel in a picture; larger fields are drawn smaller.
const SIDE: usize = 512;
/// The most panels in a row of a picture, and beside each other in a terminal.
const PANELS: usize = 10;
const BESIDE: usize = 3;
/// The longest text that a message may put into a line.
const LONG: usize = 240;

/// Which messages are shown, and how.
#[derive(Clone, Debug)]
pub struct Tail {
    /// Where the topic is.
    pub cluster: Cluster,
    /// Its name.
    pub topic: String,
    /// How its messages are written.
    pub format: Format,
    /// `earliest`, `latest`, or a time.
    pub from: String,
    /// Whether to wait for more at the end.
    pub follow: bool,
    /// How many to show at most.
    pub count: Option<u64>,
    /// Whose messages; by default everyone's.
    pub sensor: Option<String>,
    /// The folder of a PNG for each.
    pub picture: Option<PathBuf>,
    /// Whether to draw each in the terminal, and that has this many columns and rows.
    pub show: Option<[usize; 2]>,
}

/// Writes a line for every message to `out`, until there are enough, the end or the stop; how
/// many there were.
///
/// # Errors
/// When the topic cannot be read, a picture cannot be written, or nobody reads `out` any more.
pub fn tail(config: &Tail, out: &mut impl Write, stop: &Stop) -> Result<u64> {
    let Tail { cluster, topic, from, follow, .. } = config;
    ensure!(config.count != Some(0), "--count: 0 messages are soon shown; give at least 1");
    let brokers = &cluster.brokers;
    let (mut source, mut told) = (Topic::open(cluster, topic, from, *follow)?, false);
    while source.is_none() && *follow && !stop.stopped() {
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("topic {topic} is not at {brokers} yet; waiting until it is made");
        }
        std::thread::sleep(AGAIN);
        // What comes first is wanted from a topic that is new.
        source = Topic::open(cluster, topic, "earliest", *follow)?;
    }
    let Some(mut source) = source else {
        ensure!(
            stop.stopped(),
            "topic {topic} at {brokers}: is not there; is the name right, and has anything been \
             published to it?"
        );
        return Ok(0);
    };
    let partitions = match source.partitions() {
        1 => "1 partition".to_owned(),
        many => format!("{many} partitions"),
    };
    tracing::info!("topic {topic} at {brokers}, {partitions}, from {from}");
    let mut shown = 0;
    while !stop.stopped() && config.count.is_none_or(|count| shown < count) {
        match source.next(WAIT)? {
            Look::End => break,
            Look::Nothing => out.flush()?,
            Look::Seen(seen) => {
                if !config.wants(&seen) {
                    continue;
                }
                let said = config.describe(&seen);
                writeln!(out, "{}", line(&seen, &said))?;
                if let (Some(folder), Ok(said)) = (&config.picture, &said) {
                    let path = folder.join(file_name(&seen, said));
                    if picture(&seen, said, &path)? {
                        writeln!(out, "  picture: {}", path.display())?;
                    }
                }
                if let (Some([columns, rows]), Ok(said)) = (config.show, &said) {
                    write!(out, "{}", drawn(said, columns, rows))?;
                }
                shown += 1;
            }
        }
    }
    out.flush()?;
    Ok(shown)
}

impl Tail {
    /// Whether it is of the sensor asked for. Decoding it all would take longer than reading it.
    fn wants(&self, seen: &Seen) -> bool {
        let Some(wanted) = &self.sensor else { return true };
        let named = || source_name(self.format, seen.payload.as_deref()?);
        let header = seen.header("sensor").map(str::to_owned);
        header.or_else(|| seen.key.clone()).or_else(named).as_ref() == Some(wanted)
    }

    fn describe(&self, seen: &Seen) -> Result<Described, String> {
        let payload = seen.payload.as_deref().ok_or("no value: a tombstone")?;
        describe(self.format, payload)
    }
}

/// A message in a line.
fn line(seen: &Seen, said: &Result<Described, String>) -> String {
    let mut parts = Vec::new();
    let name = said.as_ref().map_or("", |said| &said.source_name);
    let sensor = seen.header("sensor").or(seen.key.as_deref()).filter(|key| !key.is_empty());
    parts.push(clean(sensor.unwrap_or(if name.is_empty() { "(no key)" } else { name })));
    // A dead letter says itself why it is one; its bytes may be anything.
    if let Some(reason) = seen.header("reason") {
        let header = |name| seen.header(name).map(clean);
        let place = match (header("topic"), header("partition"), header("offset")) {
            (Some(topic), Some(partition), Some(offset)) => {
                format!(" (it was {topic}/{partition}@{offset})")
            }
            (None, _, Some(offset)) => format!(" (it was frame {offset})"),
            _ => String::new(),
        };
        let detail = header("detail").unwrap_or_default();
        parts.push(format!("dead letter: {}: {detail}{place}", clean(reason)));
    } else {
        match said {
            Ok(said) => parts.push(contents(said)),
            Err(why) => parts.push(format!("not readable: {}", clean(why))),
        }
    }
    parts.push(size(seen.payload.as_ref().map_or(0, Vec::len)));
    parts.push(format!("{}@{}", seen.partition, seen.offset));
    parts.extend(seen.sent.and_then(age));
    parts.join("  ")
}

/// What a frame or forecast holds.
fn contents(said: &Described) -> String {
    let mut parts = Vec::new();
    match (said.reference_time, said.timestamp) {
        (Some(reference), _) => {
            let leads = match said.lead_times.as_slice() {
                [first, .., last] => format!(" +{} to +{}", span(*first), span(*last)),
                [only] => format!(" +{}", span(*only)),
                [] => String::new(),
            };
            parts.push(format_time(reference) + &leads);
        }
        (None, Some(valid)) => parts.push(format_time(valid)),
        (None, None) => parts.push("(no time)".to_owned()),
    }
    let shape: Vec<String> = said.shape.iter().map(usize::to_string).collect();
    let shape = if shape.is_empty() { "scalar".to_owned() } else { shape.join("x") };
    parts.push(format!("{} {shape} {}", clean(&said.name), said.dtype));
    let measured = || said.data.iter().filter(|value| value.is_finite());
    let count = measured().count();
    if count > 0 {
        let lo = measured().fold(f32::INFINITY, |least, value| least.min(*value));
        let hi = measured().fold(f32::NEG_INFINITY, |most, value| most.max(*value));
        let mean = measured().map(|value| f64::from(*value)).sum::<f64>() / count as f64;
        let unit = if said.unit == "1" { String::new() } else { format!(" {}", clean(&said.unit)) };
        let text = format!(
            "min {} mean {} max {}{unit}",
            number(lo.into()),
            // A mean of zero but for rounding is zero.
            number(if mean.abs() < 1e-6 * f64::from(hi - lo) { 0.0 } else { mean }),
            number(hi.into())
        );
        parts.push(text.trim_end().to_owned());
    }
    let missing = (said.data.len() - count) as f64 / (said.data.len() as f64).max(1.0);
    let digits = if missing > 0.0 && missing < 0.1 { 2 } else { 0 };
    parts.push(format!("{:.digits$} % missing", 100.0 * missing));
    if let Some(model) = &said.model {
        parts.push(format!("model {}", clean(&model.chars().take(12).collect::<String>())));
    }
    parts.extend(said.revision.map(|revision| format!("revision {revision}")));
    parts.join("  ")
}

/// Text of a message, so that it cannot move the cursor or fill the screen.
fn clean(text: &str) -> String {
    let printed = text.chars().take(LONG).flat_map(|letter| {
        let escaped = letter.is_control().then(|| letter.escape_default());
        let plain = escaped.is_none().then_some(letter);
        escaped.into_iter().flatten().chain(plain)
    });
    let more = if text.chars().nth(LONG).is_some() { "..." } else { "" };
    printed.collect::<String>() + more
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1e5.. => format!("{value:.3e}"),
        100.0.. => format!("{value:.1}"),
        1e-3.. => format!("{value:.3}"),
        _ => format!("{value:.3e}"),
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        1_000_000.. => format!("{:.1} MB", bytes as f64 / 1e6),
        1_000.. => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{bytes} B"),
    }
}

/// How long ago the message was sent.
fn age(sent: Time) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos();
    let passed = i64::try_from(now).ok()?.saturating_sub(sent);
    // Clocks differ; one ahead of ours is no age.
    Some(format!("{} ago", span(passed.max(0))))
}

fn span(nanoseconds: i64) -> String {
    let seconds = nanoseconds as f64 / 1e9;
    match seconds {
        172_800.0.. => format!("{:.0} d", seconds / 86_400.0),
        7_200.0.. => format!("{:.0} h", seconds / 3_600.0),
        120.0.. => format!("{:.0} min", seconds / 60.0),
        10.0.. => format!("{seconds:.0} s"),
        1.0.. => format!("{} s", (seconds * 10.0).round() / 10.0),
        _ => format!("{:.0} ms", seconds * 1e3),
    }
}

/// A field of a message and what stands above it.
struct Plane<'a> {
    label: String,
    field: &'a [f32],
}

/// The fields of a message as rows of panels, by the channel or whatever is not the lead time,
/// and how wide they are; nothing where it holds no field.
fn planes(said: &Described, most: usize) -> Option<(Vec<Vec<Plane<'_>>>, usize)> {
    let [outer @ .., height, width] = said.shape.as_slice() else { return None };
    let pixels = height.checked_mul(*width).filter(|pixels| *pixels > 0)?;
    let leads = said.lead_times.len().max(1);
    let fields: Vec<&[f32]> = said.data.chunks_exact(pixels).collect();
    if fields.is_empty() {
        return None;
    }
    // Leads are the first axis of a forecast; what else there is are channels.
    let by_lead = outer.first() == Some(&leads) && said.reference_time.is_some();
    let (across, down) = if by_lead { (leads, fields.len() / leads) } else { (fields.len(), 1) };
    let count = across.min(most);
    let columns = (0..count).map(|i| i * (across - 1) / (count - 1).max(1));
    let columns: Vec<usize> = columns.collect();
    let label = |column: usize| match said.lead_times.get(column) {
        Some(lead) if by_lead => format!("+{}", span(*lead)),
        _ if across > 1 => column.to_string(),
        _ => String::new(),
    };
    let row = |row: usize| {
        let plane =
            |&column: &usize| Plane { label: label(column), field: fields[column * down + row] };
        columns.iter().map(plane).collect()
    };
    Some(((0..down.min(PANELS)).map(row).collect(), *width))
}

fn shade<'a>(said: &Described, rows: &[Vec<Plane<'a>>]) -> Shade {
    Shade::suiting(&said.unit, rows.iter().flatten().map(|plane| plane.field))
}

/// The fields in blocks of colour, under a line of their labels.
fn drawn(said: &Described, columns: usize, rows: usize) -> String {
    let Some((planes, width)) = planes(said, BESIDE) else {
        return "  (no field to draw)\n".to_owned();
    };
    let shade = shade(said, &planes);
    let mut text = String::new();
    for row in planes.iter().take(BESIDE) {
        let labels: Vec<_> = row.iter().map(|p| &*p.label).filter(|l| !l.is_empty()).collect();
        if !labels.is_empty() {
            text += &format!("  {}\n", labels.join("   "));
        }
        let fields: Vec<&[f32]> = row.iter().map(|plane| plane.field).collect();
        text += &blocks(&fields, width, shade, columns, rows);
    }
    text
}

/// Draws a message as PNG at `path`; whether it holds a field.
fn picture(seen: &Seen, said: &Described, path: &std::path::Path) -> Result<bool> {
    let Some((planes, width)) = planes(said, PANELS) else { return Ok(false) };
    let shade = shade(said, &planes);
    let height = planes[0][0].field.len() / width;
    let larger = (width.max(height) as f64 / SIDE as f64).max(1.0);
    let side = |pixels: usize| ((pixels as f64 / larger) as usize).clamp(1, SIDE);
    let to = [side(width), side(height)];
    let small = |plane: &Plane| (plane.label.clone(), resized(plane.field, width, to));
    let small: Vec<Vec<_>> = planes.iter().map(|row| row.iter().map(small).collect()).collect();
    let rows: Vec<Row> = (small.iter().enumerate())
        .map(|(number, row)| Row {
            label: if small.len() > 1 { number.to_string() } else { String::new() },
            panels: (row.iter())
                .map(|(label, field)| Some(Panel { label: label.clone(), field, width: to[0] }))
                .collect(),
        })
        .collect();
    let time = said.reference_time.or(said.timestamp).map_or(String::new(), format_time);
    let sensor: String = clean(seen.key.as_deref().unwrap_or(&said.source_name));
    let title: String = format!("{sensor} {time}").chars().take(80).collect();
    let unit: String = clean(&said.unit).chars().take(20).collect();
    draw(&title, &rows, shade, &unit).save(path)?;
    Ok(true)
}

/// Whose picture, of when, and where it was read: a plain name, whatever the sensor is called.
fn file_name(seen: &Seen, said: &Described) -> String {
    let sensor = seen.key.as_deref().unwrap_or(&said.source_name);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let sensor: String = sensor.chars().take(64).map(plain).collect();
    let time = said.reference_time.or(said.timestamp).map_or(String::new(), format_time);
    let time: String = time.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    format!("{sensor}-{time}-{}-{}.png", seen.partition, seen.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(shape: &[usize], lead_times: &[i64]) -> Described {
        Described {
            source_name: "radar".to_owned(),
            timestamp: Some(0),
            name: "rate".to_owned(),
            unit: "mm h-1".to_owned(),
            axes: Vec::new(),
            shape: shape.to_vec(),
            dtype: "float32",
            data: (0..shape.iter().product()).map(|value| value as f32).collect(),
            reference_time: (!lead_times.is_empty()).then_some(0),
            lead_times: lead_times.to_vec(),
            model: None,
            revision: None,
        }
    }

    fn seen(key: &str, headers: &[(&str, &str)]) -> Seen {
        let headers = headers.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        Seen {
            partition: 2,
            offset: 7,
            sent: None,
            key: Some(key.to_owned()),
            headers: headers.collect(),
            payload: Some(vec![0; 1500]),
        }
    }

    #[test]
    fn a_line_says_what_a_message_holds() {
        let mut rain = said(&[2, 2], &[]);
        rain.data[3] = f32::NAN;
        assert_eq!(
            line(&seen("a", &[]), &Ok(rain)),
            "a  1970-01-01T00:00:00Z  rate 2x2 float32  min 0 mean 1.000 max 2.000 mm h-1  \
             25 % missing  1.5 kB  2@7"
        );
        let minutes = [300_000_000_000, 600_000_000_000];
        let forecast = Described {
            model: Some("0123456789abcdef".to_owned()),
            revision: Some(1),
            unit: "1".to_owned(),
            ..said(&[2, 1, 1], &minutes)
        };
        assert_eq!(
            line(&seen("a", &[]), &Ok(forecast)),
            "a  1970-01-01T00:00:00Z +5 min to +10 min  rate 2x1x1 float32  \
             min 0 mean 0.500 max 1.000  0 % missing  model 0123456789ab  revision 1  1.5 kB  2@7"
        );
        let letter = [
            ("reason", "late"),
            ("detail", "too old"),
            ("topic", "frames"),
            ("partition", "1"),
            ("offset", "9"),
        ];
        assert_eq!(
            line(&seen("a", &letter), &Err(String::new())),
            "a  dead letter: late: too old (it was frames/1@9)  1.5 kB  2@7"
        );
    }

    #[test]
    fn a_message_cannot_move_the_cursor() {
        let key = format!("\x1b[2J\n{}", "x".repeat(500));
        let line = line(&seen(&key, &[]), &Err("\r\u{9b}2J".to_owned()));
        assert!(!line.chars().any(char::is_control), "{line}");
        assert!(line.starts_with("\\u{1b}[2J\\nx") && line.len() < 400, "{line}");
        assert_eq!(
            file_name(&seen("../a/b", &[]), &said(&[1], &[])),
            "___a_b-19700101T000000Z-2-7.png"
        );
    }

    #[test]
    fn whatever_its_shape_a_message_is_drawn_or_not() {
        let folder = tempfile::tempdir().unwrap();
        for shape in [&[][..], &[3], &[0, 4], &[2, 0, 4], &[4, 0], &[0, 2, 2]] {
            let said = said(shape, &[]);
            assert!(drawn(&said, 80, 20).contains("no field"), "{shape:?}");
            let path = folder.path().join("none.png");
            assert!(!picture(&seen("a", &[]), &said, &path).unwrap() && !path.exists());
        }
        for shape in [&[1, 1][..], &[1, 100_000], &[50_000, 2], &[3, 2, 5, 4], &[30, 2, 2]] {
            for leads in [&[][..], &[1], &[1, 2, 3], &[5; 30]] {
                let said = said(shape, leads);
                let text = drawn(&said, 80, 20);
                assert!(text.contains('▀'), "{shape:?}");
                let path = folder.path().join("a.png");
                assert!(picture(&seen("a", &[]), &said, &path).unwrap() && path.exists());
            }
        }
    }

    #[test]
    fn leads_stand_beside_each_other_and_channels_below() {
        let said = said(&[3, 2, 1, 1], &[1_000_000_000, 2_000_000_000, 3_000_000_000]);
        let (rows, width) = planes(&said, 2).unwrap();
        let values: Vec<Vec<_>> =
            rows.iter().map(|row| row.iter().map(|p| (&*p.label, p.field[0])).collect()).collect();
        assert_eq!(width, 1);
        let expected = [[("+1 s", 0.0), ("+3 s", 4.0)], [("+1 s", 1.0), ("+3 s", 5.0)]];
        assert_eq!(values, expected);
    }
}
