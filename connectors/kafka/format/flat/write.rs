//! Writing, front to back: a table first, then what its offsets lead to.

/// A field of a table that is being written.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Field {
    /// Left out.
    Absent,
    U8(u8),
    I32(i32),
    I64(i64),
    /// Leads to something that is written later.
    Offset,
}

impl Field {
    fn size(self) -> usize {
        match self {
            Self::Absent => 0,
            Self::U8(_) => 1,
            Self::I32(_) | Self::Offset => 4,
            Self::I64(_) => 8,
        }
    }
}

/// A buffer that is being written.
#[derive(Debug)]
pub(in super::super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A buffer of this schema with room for `capacity` bytes, and the place of its root's offset.
    pub(in super::super) fn new(schema: &str, capacity: usize) -> (Self, usize) {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend([0; 4]);
        bytes.extend(schema.as_bytes());
        (Self { bytes }, 0)
    }

    /// The message.
    ///
    /// # Errors
    /// When it is too long for FlatBuffers, whose offsets end at 2 GiB.
    pub(in super::super) fn finish(self) -> Result<Vec<u8>, String> {
        match i32::try_from(self.bytes.len()) {
            Ok(_) => Ok(self.bytes),
            Err(_) => Err(format!("{} bytes, more than 2 GiB", self.bytes.len())),
        }
    }

    /// Writes a table that the offset at `from` leads to; tells where its fields lie.
    pub(in super::super) fn table<const N: usize>(
        &mut self,
        from: usize,
        fields: [Field; N],
    ) -> [usize; N] {
        let vtable = self.align(0, 2);
        let end = vtable + 4 + 2 * N;
        let table = end.next_multiple_of(4);
        let mut places = [0; N];
        let mut next = table + 4;
        for (place, field) in places.iter_mut().zip(fields) {
            let size = field.size();
            if size > 0 {
                *place = next.next_multiple_of(size);
                next = *place + size;
            }
        }
        self.put(&((4 + 2 * N) as u16).to_le_bytes());
        self.put(&((next - table) as u16).to_le_bytes());
        for place in places {
            self.put(&(place.saturating_sub(table) as u16).to_le_bytes());
        }
        self.bytes.resize(table, 0);
        self.put(&((table - vtable) as i32).to_le_bytes());
        self.bytes.resize(next, 0);
        for (place, field) in places.into_iter().zip(fields) {
            match field {
                Field::Absent | Field::Offset => {}
                Field::U8(value) => self.bytes[place] = value,
                Field::I32(value) => self.overwrite(place, value.to_le_bytes()),
                Field::I64(value) => self.overwrite(place, value.to_le_bytes()),
            }
        }
        self.lead(from, table);
        places
    }

    /// Writes a text that the offset at `from` leads to.
    pub(in super::super) fn text(&mut self, from: usize, text: &str) {
        self.vector(from, text.len(), 4, text.len()).copy_from_slice(text.as_bytes());
        // For readers in C.
        self.put(&[0]);
    }

    /// Writes a vector of lengths.
    pub(in super::super) fn lengths(&mut self, from: usize, lengths: &[usize]) {
        let to = self.vector(from, lengths.len(), 8, 8 * lengths.len());
        for (to, length) in to.as_chunks_mut().0.iter_mut().zip(lengths) {
            *to = (*length as u64).to_le_bytes();
        }
    }

    /// Writes a vector of `count` offsets; tells where they lie.
    pub(in super::super) fn offsets(
        &mut self,
        from: usize,
        count: usize,
    ) -> impl Iterator<Item = usize> + use<> {
        self.vector(from, count, 4, 4 * count);
        let start = self.bytes.len() - 4 * count;
        (0..count).map(move |k| start + 4 * k)
    }

    /// Makes room for a vector of bytes, which begins at a multiple of 8 so that readers may use
    /// numbers where they lie.
    pub(in super::super) fn bytes(&mut self, from: usize, len: usize) -> &mut [u8] {
        self.vector(from, len, 8, len)
    }

    fn vector(&mut self, from: usize, count: usize, align: usize, len: usize) -> &mut [u8] {
        let at = self.align(4, align);
        self.lead(from, at);
        // Past the end of 32 bits `finish` refuses the whole.
        self.put(&(count as u32).to_le_bytes());
        self.bytes.resize(at + 4 + len, 0);
        &mut self.bytes[at + 4..]
    }

    /// Pads so that what comes after the next `before` bytes is aligned; tells where they begin.
    fn align(&mut self, before: usize, align: usize) -> usize {
        let at = (self.bytes.len() + before).next_multiple_of(align.max(4)) - before;
        self.bytes.resize(at, 0);
        at
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn lead(&mut self, from: usize, to: usize) {
        self.overwrite(from, ((to - from) as u32).to_le_bytes());
    }

    fn overwrite<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&bytes);
    }
}
