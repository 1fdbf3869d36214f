//! What may stand in a file, as JSON Schema, from the types that read it.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The schema of what `T` reads, draft 7: the one that editors know.
pub fn schema<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<T>();
    // The number of this machine's threads is no default of all.
    if let Some(Value::Object(threads)) = schema.pointer_mut("/properties/threads") {
        threads.remove("default");
    }
    schema.to_value()
}
