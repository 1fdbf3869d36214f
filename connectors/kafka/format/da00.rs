//! FlatBuffers `da00`: named arrays with axes, units and shapes.

use std::borrow::Cow;

use super::dtype::{Dtype, Values};
use super::flat::{Field, Slot, Table, Writer, root};
use super::message::{MOST_DIMS, MOST_VARIABLES, Message, Variable, quoted};

const SCHEMA: &str = "da00";
const SOURCE_NAME: Slot = Slot(0, "source_name");
const TIMESTAMP: Slot = Slot(1, "timestamp");
const DATA: Slot = Slot(2, "data");

/// The fields of a variable.
mod variable {
    use super::Slot;
    pub(super) const NAME: Slot = Slot(0, "name");
    pub(super) const UNIT: Slot = Slot(1, "unit");
    pub(super) const LABEL: Slot = Slot(2, "label");
    pub(super) const SOURCE: Slot = Slot(3, "source");
    pub(super) const DATA_TYPE: Slot = Slot(4, "data_type");
    pub(super) const AXES: Slot = Slot(5, "axes");
    pub(super) const SHAPE: Slot = Slot(6, "shape");
    pub(super) const DATA: Slot = Slot(7, "data");
}

/// The name of the sender alone.
pub(super) fn source_name(bytes: &[u8]) -> Option<String> {
    let name = root(bytes, SCHEMA).ok()?.text(SOURCE_NAME).ok()??;
    Some(name.to_owned())
}

/// Reads a message.
pub(super) fn parse(bytes: &[u8]) -> Result<Message<'_>, String> {
    let root = root(bytes, SCHEMA)?;
    let variables = root.tables(DATA, MOST_VARIABLES)?;
    Ok(Message {
        source_name: root.required_text(SOURCE_NAME)?.into(),
        // The encoding leaves out a zero: none and 1970 are the same.
        timestamp: Some(root.i64(TIMESTAMP)?),
        variables: variables.into_iter().map(parse_variable).collect::<Result<_, _>>()?,
    })
}

fn parse_variable(table: Table) -> Result<Variable, String> {
    let name = table.required_text(variable::NAME)?;
    parse_array(table, name).map_err(|why| format!("variable {}: {why}", quoted(name)))
}

fn parse_array<'a>(table: Table<'a>, name: &'a str) -> Result<Variable<'a>, String> {
    let code = table.u8(variable::DATA_TYPE)?;
    let dtype = usize::from(code).checked_sub(1).and_then(|at| Dtype::ORDER.get(at));
    let dtype = *dtype.ok_or_else(|| format!("data_type {code} is not a type of da00"))?;
    let axes = table.texts(variable::AXES, MOST_DIMS)?;
    let mut shape = table.lengths(variable::SHAPE, MOST_DIMS)?;
    let bytes = table.bytes(variable::DATA)?;
    // Not needed, but a message that was cut short within it is not whole.
    table.text(variable::SOURCE)?;
    // The Python client writes a plain number as the shape of its bytes.
    let plain = axes.is_empty() && shape == [bytes.len()] && bytes.len() == dtype.size();
    if plain && dtype != Dtype::Text && bytes.len() > 1 {
        shape.clear();
    }
    Ok(Variable {
        name: name.into(),
        unit: table.text(variable::UNIT)?.unwrap_or_default().into(),
        label: table.text(variable::LABEL)?.unwrap_or_default().into(),
        axes: axes.into_iter().map(Cow::Borrowed).collect(),
        shape,
        values: Values::Bytes(dtype, bytes.into()),
    })
}

/// Writes a message.
pub(super) fn write(message: &Message) -> Result<Vec<u8>, String> {
    let Message { source_name, timestamp, variables } = message;
    let payload: usize = variables.iter().map(|v| v.values.bytes_len() + 512).sum();
    let (mut writer, start) = Writer::new(SCHEMA, payload + 512);
    let time = Field::I64(timestamp.unwrap_or(0));
    let [name, _, data] = writer.table(start, [Field::Offset, time, Field::Offset]);
    writer.text(name, source_name);
    for (from, variable) in writer.offsets(data, variables.len()).zip(variables) {
        write_variable(&mut writer, from, variable);
    }
    writer.finish()
}

fn write_variable(writer: &mut Writer, from: usize, variable: &Variable) {
    let Variable { name, unit, label, axes, shape, values } = variable;
    let optional = |text: &str| if text.is_empty() { Field::Absent } else { Field::Offset };
    let code = Dtype::ORDER.iter().position(|dtype| *dtype == values.dtype());
    let [at_name, at_unit, at_label, _, _, at_axes, at_shape, at_data] = writer.table(
        from,
        [
            Field::Offset,
            optional(unit),
            optional(label),
            Field::Absent,
            Field::U8(code.map_or(0, |at| at as u8 + 1)),
            Field::Offset,
            Field::Offset,
            Field::Offset,
        ],
    );
    writer.text(at_name, name);
    for (at, text) in [(at_unit, unit), (at_label, label)] {
        if !text.is_empty() {
            writer.text(at, text);
        }
    }
    for (at, axis) in writer.offsets(at_axes, axes.len()).zip(axes) {
        writer.text(at, axis);
    }
    writer.lengths(at_shape, shape);
    values.copy_to(writer.bytes(at_data, values.bytes_len()));
}
