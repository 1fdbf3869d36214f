//! Reading: every offset is checked where it is followed.

use super::super::looks::looks;
use super::super::message::MOST_TEXT;

/// A field of a table: its place in the vtable, and its name for errors.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Slot(pub(in super::super) usize, pub(in super::super) &'static str);

impl Slot {
    fn outside(self) -> String {
        format!("{}: lies outside the message", self.1)
    }
}

/// A table in a buffer.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Table<'a> {
    buffer: &'a [u8],
    at: usize,
    /// The places of the fields, two bytes each.
    slots: &'a [u8],
}

/// The root table of a buffer that says it has this schema.
pub(in super::super) fn root<'a>(buffer: &'a [u8], schema: &str) -> Result<Table<'a>, String> {
    let Some((_, rest)) = buffer.split_first_chunk::<4>() else {
        return Err(format!("{} bytes, too few for a message", buffer.len()));
    };
    let Some(found) = rest.first_chunk::<4>() else {
        return Err(format!("{} bytes, too few for a message", buffer.len()));
    };
    if found != schema.as_bytes() {
        return Err(format!("no {schema} message: {}", looks(buffer)));
    }
    let outside = || "root table: lies outside the message".to_owned();
    let at = follow(buffer, 0).ok_or_else(outside)?;
    Table::at(buffer, at).ok_or_else(outside)
}

impl<'a> Table<'a> {
    fn at(buffer: &'a [u8], at: usize) -> Option<Self> {
        let back = i32::from_le_bytes(array(buffer, at)?);
        let vtable = usize::try_from(i64::try_from(at).ok()? - i64::from(back)).ok()?;
        let len = u16::from_le_bytes(array(buffer, vtable)?).into();
        let slots = buffer.get(vtable..)?.get(..len)?.get(4..)?;
        Some(Self { buffer, at, slots })
    }

    /// Where a field lies; `None` where the table leaves it out.
    fn field(&self, slot: Slot) -> Option<usize> {
        let place = u16::from_le_bytes(array(self.slots, 2 * slot.0)?);
        (place != 0).then(|| self.at + usize::from(place))
    }

    fn scalar<const N: usize>(&self, slot: Slot) -> Result<Option<[u8; N]>, String> {
        let Some(at) = self.field(slot) else { return Ok(None) };
        array(self.buffer, at).map(Some).ok_or_else(|| slot.outside())
    }

    /// An integer, 0 where it is left out.
    pub(in super::super) fn i64(&self, slot: Slot) -> Result<i64, String> {
        Ok(self.scalar(slot)?.map_or(0, i64::from_le_bytes))
    }

    /// A byte, 0 where it is left out.
    pub(in super::super) fn u8(&self, slot: Slot) -> Result<u8, String> {
        Ok(self.scalar(slot)?.map_or(0, u8::from_le_bytes))
    }

    /// A vector of elements of `size` bytes, as bytes.
    fn vector(&self, slot: Slot, size: usize) -> Result<Option<&'a [u8]>, String> {
        let Some(field) = self.field(slot) else { return Ok(None) };
        let vector = follow(self.buffer, field).and_then(|at| vector(self.buffer, at, size));
        vector.map(|(_, bytes)| Some(bytes)).ok_or_else(|| slot.outside())
    }

    /// A vector of bytes.
    pub(in super::super) fn bytes(&self, slot: Slot) -> Result<&'a [u8], String> {
        self.vector(slot, 1)?.ok_or_else(|| format!("{}: is missing", slot.1))
    }

    /// A text, if it is there.
    pub(in super::super) fn text(&self, slot: Slot) -> Result<Option<&'a str>, String> {
        self.vector(slot, 1)?.map(|bytes| utf8(bytes, slot)).transpose()
    }

    /// A text that must be there.
    pub(in super::super) fn required_text(&self, slot: Slot) -> Result<&'a str, String> {
        self.text(slot)?.ok_or_else(|| format!("{}: is missing", slot.1))
    }

    /// A vector of lengths, at most `most`; signed in one schema, unsigned in the other, and
    /// refused where the two would differ.
    pub(in super::super) fn lengths(&self, slot: Slot, most: usize) -> Result<Vec<usize>, String> {
        let bytes = self.vector(slot, 8)?.ok_or_else(|| format!("{}: is missing", slot.1))?;
        let (lengths, _) = bytes.as_chunks();
        within(lengths.len(), most, slot)?;
        let length = |bytes: &[u8; 8]| {
            let length = i64::from_le_bytes(*bytes);
            usize::try_from(length).map_err(|_| format!("{}: {length} is no length", slot.1))
        };
        lengths.iter().map(length).collect()
    }

    /// Where the elements of a vector of offsets lie, at most `most`; none if it is left out.
    fn offsets(&self, slot: Slot, most: usize) -> Result<Vec<usize>, String> {
        let Some(field) = self.field(slot) else { return Ok(Vec::new()) };
        let at = follow(self.buffer, field);
        let (start, bytes) =
            at.and_then(|at| vector(self.buffer, at, 4)).ok_or_else(|| slot.outside())?;
        let count = bytes.len() / 4;
        within(count, most, slot)?;
        let element = |k| follow(self.buffer, start + 4 * k).ok_or_else(|| slot.outside());
        (0..count).map(element).collect()
    }

    /// A vector of tables, at most `most`.
    pub(in super::super) fn tables(&self, slot: Slot, most: usize) -> Result<Vec<Self>, String> {
        let table = |at| Self::at(self.buffer, at).ok_or_else(|| slot.outside());
        self.offsets(slot, most)?.into_iter().map(table).collect()
    }

    /// A vector of texts, at most `most`.
    pub(in super::super) fn texts(&self, slot: Slot, most: usize) -> Result<Vec<&'a str>, String> {
        let text = |at| {
            let (_, bytes) = vector(self.buffer, at, 1).ok_or_else(|| slot.outside())?;
            utf8(bytes, slot)
        };
        self.offsets(slot, most)?.into_iter().map(text).collect()
    }
}

fn within(count: usize, most: usize, slot: Slot) -> Result<(), String> {
    if count <= most { Ok(()) } else { Err(format!("{}: {count}, more than {most}", slot.1)) }
}

fn utf8(bytes: &[u8], slot: Slot) -> Result<&str, String> {
    within(bytes.len(), MOST_TEXT, slot)?;
    std::str::from_utf8(bytes).map_err(|_| format!("{}: is not UTF-8", slot.1))
}

fn array<const N: usize>(buffer: &[u8], at: usize) -> Option<[u8; N]> {
    buffer.get(at..)?.first_chunk().copied()
}

/// Where the offset at a place leads.
fn follow(buffer: &[u8], at: usize) -> Option<usize> {
    at.checked_add(usize::try_from(u32::from_le_bytes(array(buffer, at)?)).ok()?)
}

/// Where the elements of a vector begin, and their bytes.
fn vector(buffer: &[u8], at: usize, size: usize) -> Option<(usize, &[u8])> {
    let count = usize::try_from(u32::from_le_bytes(array(buffer, at)?)).ok()?;
    let start = at.checked_add(4)?;
    let bytes = buffer.get(start..)?.get(..count.checked_mul(size)?)?;
    Some((start, bytes))
}
