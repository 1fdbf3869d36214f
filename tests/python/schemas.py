"""Validates configs against our schemas, by the reference validator of JSON Schema.

Reads lines {"schema": path, "config": value} from the standard input and writes for each
a line: "fits", or what does not.
"""

import json
import sys

import jsonschema

schemas = {}
for line in sys.stdin:
    case = json.loads(line)
    path = case["schema"]
    if path not in schemas:
        with open(path) as file:
            schema = json.load(file)
        validator = jsonschema.validators.validator_for(schema)
        validator.check_schema(schema)
        schemas[path] = validator(schema)
    error = jsonschema.exceptions.best_match(schemas[path].iter_errors(case["config"]))
    print("fits" if error is None else f"{error.json_path}: {error.message}".replace("\n", " "))
