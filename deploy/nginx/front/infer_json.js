// A request over HTTP: a JSON header, then the tensors in binary, one after another.

import json from "json.js";
import refusal from "refusal.js";

const REQUEST = ["id", "parameters", "inputs", "outputs"];
const INPUT = ["name", "datatype", "shape", "parameters"];
const OUTPUT = ["name", "parameters"];

// Read the request in `body`, a Buffer, whose first `headerBytes` are JSON.
function read(body, headerBytes) {
    const text = body.toString("utf8", 0, headerBytes);
    if (text.indexOf("\ufffd") >= 0) {
        throw refusal.of("the JSON of the request is not valid UTF-8");
    }
    const request = object(json.parse(text), REQUEST, "the request");
    let offset = headerBytes;
    const inputs = array(request.inputs, "inputs").map((given) => {
        const input = object(given, INPUT, "an input");
        const parameters = object(input.parameters || {}, ["binary_data_size"], "the table of an input's parameters");
        const size = parameters.binary_data_size;
        if (!Number.isSafeInteger(size) || size < 0) {
            throw refusal.of("an input has no binary_data_size: tensors belong in binary, not in JSON");
        }
        const start = offset;
        offset += size;
        return { name: input.name, datatype: input.datatype, shape: array(input.shape, "a shape"), start, size };
    });
    if (offset !== body.length) {
        throw refusal.of("the inputs' binary_data_size and the length of the body contradict each other");
    }
    const outputs = array(request.outputs === undefined ? [] : request.outputs, "outputs").map((given) => {
        const output = object(given, OUTPUT, "an output");
        return { name: output.name, parameters: parameters(output.parameters) };
    });
    const id = request.id === undefined ? "" : request.id;
    return { id, parameters: parameters(request.parameters), inputs, outputs };
}

// [[key, value]]: an object of JavaScript has names of its own, such as constructor.
function parameters(given) {
    const found = given === undefined ? {} : object(given, null, "parameters");
    return Object.keys(found).map((key) => [key, found[key]]);
}

function object(value, known, what) {
    if (value === null || typeof value !== "object" || Array.isArray(value)) {
        throw refusal.of(`${what} must be a JSON object`);
    }
    if (known !== null && Object.keys(value).some((key) => !known.includes(key))) {
        const data = what === "an input" && value.data !== undefined;
        throw refusal.of(data ? "tensors belong in binary, not in JSON" : `${what} has a key that is not known here`);
    }
    return value;
}

function array(value, what) {
    if (!Array.isArray(value)) {
        throw refusal.of(`${what} must be a JSON array`);
    }
    return value;
}

export default { read };
