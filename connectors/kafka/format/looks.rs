//! What bytes look like that are not what they should be: for an error.

/// So much of a message tells whether it is text.
const START: usize = 64;

/// What a message seems to be, in words.
pub(super) fn looks(bytes: &[u8]) -> String {
    if let Some(text) = text(bytes) {
        let json = text.trim_start().starts_with(['{', '[']);
        let what =
            if json { "it looks like JSON; is the format json?" } else { "it looks like text" };
        return what.to_owned();
    }
    // FlatBuffers have their schema there.
    let schema = bytes.get(4..8).and_then(|name| std::str::from_utf8(name).ok());
    match schema.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric())) {
        Some(ours @ ("da00" | "ad00")) => {
            format!("its schema is \"{ours}\"; is the format {ours}?")
        }
        Some(other) => format!("its schema is \"{other}\""),
        None => "it is no text, and names no schema".to_owned(),
    }
}

/// The start of a message, if that is text.
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    let start = &bytes[..bytes.len().min(START)];
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // A letter that the cut goes through.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let written = |c: char| !c.is_control() || c.is_ascii_whitespace();
    (!text.is_empty() && text.chars().all(written)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_told_by_its_first_bytes() {
        let accents = format!("x{}", "é".repeat(64));
        for (bytes, told) in [
            (&b" {\"source_name\": \"a\"}"[..], "it looks like JSON; is the format json?"),
            (b"[[1, 2], [3, 4]]", "it looks like JSON; is the format json?"),
            (b"12.5;13.0\r\n\t12.7", "it looks like text"),
            (accents.as_bytes(), "it looks like text"),
            (b"\x18\0\0\0da00\0\0", "its schema is \"da00\"; is the format da00?"),
            (b"\x18\0\0\0ev44\0\0", "its schema is \"ev44\""),
            (b"\x18\0\0\0\xff\x01ab", "it is no text, and names no schema"),
            (b"\x18\0\0\0\0\0", "it is no text, and names no schema"),
            (b"\xff\xfe\0", "it is no text, and names no schema"),
            (b"", "it is no text, and names no schema"),
        ] {
            assert_eq!(looks(bytes), told, "{}", bytes.escape_ascii());
        }
    }
}
