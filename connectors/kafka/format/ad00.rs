//! FlatBuffers `ad00`: one array of an area detector or camera, with attributes.
//!
//! There are no axes and no units. Attributes are read as variables of their own, so that a time
//! or a lead time can stand in one; an attribute's `description` is taken for its unit.

use super::dtype::{Dtype, Values};
use super::flat::{Field, Slot, Table, Writer, root};
use super::message::{MOST_DIMS, MOST_VARIABLES, Message, SIGNAL, Variable, quoted};

const SCHEMA: &str = "ad00";
const SOURCE_NAME: Slot = Slot(0, "source_name");
const TIMESTAMP: Slot = Slot(2, "timestamp");
const DIMENSIONS: Slot = Slot(3, "dimensions");
const DATA_TYPE: Slot = Slot(4, "data_type");
const DATA: Slot = Slot(5, "data");
const ATTRIBUTES: Slot = Slot(6, "attributes");

/// The fields of an attribute.
mod attribute {
    use super::Slot;
    pub(super) const NAME: Slot = Slot(0, "name");
    pub(super) const DESCRIPTION: Slot = Slot(1, "description");
    pub(super) const SOURCE: Slot = Slot(2, "source");
    pub(super) const DATA_TYPE: Slot = Slot(3, "data_type");
    pub(super) const DATA: Slot = Slot(4, "data");
}

/// The name of the sender alone.
pub(super) fn source_name(bytes: &[u8]) -> Option<String> {
    let name = root(bytes, SCHEMA).ok()?.text(SOURCE_NAME).ok()??;
    Some(name.to_owned())
}

/// Reads a message.
pub(super) fn parse(bytes: &[u8]) -> Result<Message<'_>, String> {
    let root = root(bytes, SCHEMA)?;
    let signal = Variable {
        name: SIGNAL.into(),
        unit: "".into(),
        label: "".into(),
        axes: Vec::new(),
        shape: root.lengths(DIMENSIONS, MOST_DIMS)?,
        values: Values::Bytes(dtype(root.u8(DATA_TYPE)?)?, root.bytes(DATA)?.into()),
    };
    let mut variables = vec![signal];
    for table in root.tables(ATTRIBUTES, MOST_VARIABLES)? {
        variables.push(parse_attribute(table)?);
    }
    Ok(Message {
        source_name: root.required_text(SOURCE_NAME)?.into(),
        // The encoding leaves out a zero: none and 1970 are the same.
        timestamp: Some(root.i64(TIMESTAMP)?),
        variables,
    })
}

fn parse_attribute(table: Table) -> Result<Variable, String> {
    let name = table.required_text(attribute::NAME)?;
    let wrong = |why: String| format!("attribute {}: {why}", quoted(name));
    let dtype = table.u8(attribute::DATA_TYPE).and_then(dtype).map_err(wrong)?;
    let bytes = table.bytes(attribute::DATA).map_err(wrong)?;
    let description = table.text(attribute::DESCRIPTION).map_err(wrong)?;
    // Not needed, but a message that was cut short within it is not whole.
    table.text(attribute::SOURCE).map_err(wrong)?;
    let count = bytes.len() / dtype.size();
    let scalar = count == 1 && dtype != Dtype::Text;
    Ok(Variable {
        name: name.into(),
        unit: description.unwrap_or_default().into(),
        label: "".into(),
        axes: Vec::new(),
        shape: if scalar { Vec::new() } else { vec![count] },
        values: Values::Bytes(dtype, bytes.into()),
    })
}

fn dtype(code: u8) -> Result<Dtype, String> {
    let dtype = Dtype::ORDER.get(usize::from(code)).copied();
    dtype.ok_or_else(|| format!("data_type {code} is not a type of ad00"))
}

/// Writes a message: its `signal` as the array, everything else as attributes.
pub(super) fn write(message: &Message) -> Result<Vec<u8>, String> {
    let signal = message.get(SIGNAL).ok_or("has no signal to write")?;
    let others: Vec<_> = message.variables.iter().filter(|v| v.name != SIGNAL).collect();
    let payload: usize = message.variables.iter().map(|v| v.values.bytes_len() + 256).sum();
    let (mut writer, start) = Writer::new(SCHEMA, payload + 512);
    let [name, _, _, dimensions, _, data, attributes] = writer.table(
        start,
        [
            Field::Offset,
            Field::I32(0),
            Field::I64(message.timestamp.unwrap_or(0)),
            Field::Offset,
            Field::U8(code(&signal.values)),
            Field::Offset,
            Field::Offset,
        ],
    );
    writer.text(name, &message.source_name);
    writer.lengths(dimensions, &signal.shape);
    signal.values.copy_to(writer.bytes(data, signal.values.bytes_len()));
    for (from, variable) in writer.offsets(attributes, others.len()).zip(others) {
        let Variable { name, unit, values, .. } = variable;
        let (offset, dtype) = (Field::Offset, Field::U8(code(values)));
        let [at_name, at_description, at_source, _, at_data] =
            writer.table(from, [offset, offset, offset, dtype, offset]);
        writer.text(at_name, name);
        writer.text(at_description, unit);
        // Empty, but there: the Python client fails where it is not.
        writer.text(at_source, "");
        values.copy_to(writer.bytes(at_data, values.bytes_len()));
    }
    writer.finish()
}

fn code(values: &Values) -> u8 {
    let code = Dtype::ORDER.iter().position(|dtype| *dtype == values.dtype());
    code.unwrap_or_default() as u8
}
