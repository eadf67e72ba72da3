// Whether a request fits a model: its names, types and shapes, and as many bytes as these say.

import refusal from "refusal.js";

// Bytes of an element. Not BYTES: each of those has four that say how many follow.
const SIZES = {
    BOOL: 1, UINT8: 1, UINT16: 2, UINT32: 4, UINT64: 8, INT8: 1, INT16: 2, INT32: 4, INT64: 8,
    FP16: 2, BF16: 2, FP32: 4, FP64: 8,
};
const MOST_STRINGS = 65536; // of a tensor: they are counted one by one, and others wait meanwhile
const CLASSIFIED = /^TYPE_(U?INT|FP32|FP64)/;
const MOST_CLASSES = 10000;
const MOST_TEXT = 256; // characters of an id
const CONTROL = /[\x00-\x1f\x7f]/;

// Of a request, and of an output. What is not here is refused, all of shared memory among it.
const OF_REQUEST = {
    sequence_id: (value) => whole(value) || text(value),
    sequence_start: flag,
    sequence_end: flag,
    priority: whole,
    timeout: whole, // microseconds
    binary_data_output: flag,
};
const OF_OUTPUT = {
    binary_data: flag,
    classification: (value) => whole(value) && value >= 1 && value <= MOST_CLASSES,
};

// Compare a request with the configuration that the server has of its model, and with the bytes of its tensors.
function check(request, config, body) {
    if (!text(request.id)) {
        throw refusal.of(`the id of a request may have ${MOST_TEXT} characters, and no control characters`);
    }
    known(request.parameters, OF_REQUEST, "the request");
    const described = config.input || [];
    const inputs = named(request.inputs, described, "an input");
    if (described.some((one) => !one.optional && !inputs.includes(one))) {
        throw refusal.of("an input of the model is missing");
    }
    request.inputs.forEach((input, i) => fits(input, inputs[i], config.max_batch_size || 0, body));
    const outputs = named(request.outputs, config.output || [], "an output");
    request.outputs.forEach((output, i) => {
        known(output.parameters, OF_OUTPUT, "an output");
        const classified = output.parameters.some((parameter) => parameter[0] === "classification");
        if (classified && !CLASSIFIED.test(outputs[i].data_type)) { // of strings it ends Triton 2.51
            throw refusal.of("an output of this datatype has no classification");
        }
    });
}

// Find the description of each tensor by its name.
function named(tensors, described, what) {
    const names = [];
    return tensors.map((tensor) => {
        const found = described.find((one) => one.name === tensor.name);
        if (found === undefined) {
            throw refusal.of(`${what} has a name that the model does not know`);
        }
        if (names.includes(found.name)) {
            throw refusal.of(`${what} is there twice`);
        }
        names.push(found.name);
        return found;
    });
}

function fits(tensor, described, maxBatch, body) {
    const datatype = described.data_type === "TYPE_STRING" ? "BYTES" : described.data_type.slice("TYPE_".length);
    if (tensor.datatype !== datatype) {
        throw refusal.of("an input has another datatype than the model");
    }
    const dims = described.dims.map(Number), batched = maxBatch > 0;
    const most = batched ? [maxBatch].concat(dims) : dims;
    if (tensor.shape.length !== most.length) {
        throw refusal.of("the shape of an input has another number of dimensions than the model");
    }
    if (batched && tensor.shape[0] > maxBatch) {
        throw refusal.of(`the batch-size must be <= ${maxBatch}`); // clients learn it from Triton's words
    }
    let elements = 1;
    for (let i = 0; i < most.length; i++) {
        const size = tensor.shape[i];
        const any = most[i] === -1 || (batched && i === 0);
        if (!Number.isSafeInteger(size) || size < 1 || !(any || size === most[i])) {
            throw refusal.of("the shape of an input is not one that the model takes");
        }
        elements *= size;
        if (elements > body.length) { // before it can overflow: an element has a byte at least
            throw refusal.of("the shape of an input has more elements than the request has bytes");
        }
    }
    if (datatype === "BYTES" ? !strings(tensor, elements, body) : tensor.size !== elements * SIZES[datatype]) {
        throw refusal.of("the shape of an input and its bytes contradict each other");
    }
}

// Tell whether a tensor's bytes are so many strings, each after its length.
function strings(tensor, elements, body) {
    if (elements > MOST_STRINGS) {
        throw refusal.of(`an input has more than ${MOST_STRINGS} strings`);
    }
    const end = tensor.start + tensor.size;
    let at = tensor.start;
    for (let i = 0; i < elements; i++) {
        if (at + 4 > end) {
            return false;
        }
        at += 4 + body.readUInt32LE(at);
    }
    return at === end;
}

function known(parameters, checks, what) {
    const names = Object.keys(checks);
    parameters.forEach((parameter) => {
        if (!names.includes(parameter[0]) || !checks[parameter[0]](parameter[1])) {
            throw refusal.of(`${what} has a parameter that is not known here, or with a value that it cannot have`);
        }
    });
}

function flag(value) {
    return typeof value === "boolean";
}

function whole(value) {
    return Number.isSafeInteger(value) && value >= 0;
}

function text(value) {
    return typeof value === "string" && value.length <= MOST_TEXT && !CONTROL.test(value);
}

export default { check };
