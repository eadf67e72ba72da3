// A request over gRPC: one inference.ModelInferRequest, its tensors in raw_input_contents.
// https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto

import protobuf from "protobuf.js";
import refusal from "refusal.js";

const REQUEST = {
    1: ["model", "string"],
    2: ["version", "string"],
    3: ["id", "string"],
    4: ["parameters", "message", true],
    5: ["inputs", "message", true],
    6: ["outputs", "message", true],
    7: ["contents", "bytes", true],
};
const INPUT = {
    1: ["name", "string"],
    2: ["datatype", "string"],
    3: ["shape", "ints", true],
    4: ["parameters", "message", true],
    5: ["contents", "bytes"],
};
const OUTPUT = { 1: ["name", "string"], 2: ["parameters", "message", true] };
const ENTRY = { 1: ["key", "string"], 2: ["value", "message"] };
const PARAMETER = { 1: ["bool", "bool"], 2: ["int", "int"], 3: ["string", "string"], 4: ["double", "double"], 5: ["uint", "int"] };
const ABOUT_A_MODEL = { 1: ["model", "string"], 2: ["version", "string"] }; // ModelReady, ModelMetadata
const HEALTH = { 1: ["service", "string"] };

// Read the only message of a request to `method` ("ModelInfer") in `body`, a Buffer.
function read(body, method) {
    // One byte says whether it is compressed, four how long it is.
    if (body.length < 5 || body[0] !== 0 || body.readUInt32BE(1) !== body.length - 5) {
        throw refusal.of("the request must be one message, and not compressed");
    }
    const end = body.length;
    if (method !== "ModelInfer") {
        const fields = /^Model/.test(method) ? ABOUT_A_MODEL : method === "Check" ? HEALTH : {};
        return protobuf.read(body, 5, end, fields);
    }
    const request = protobuf.read(body, 5, end, REQUEST);
    if (request.inputs.length !== request.contents.length) {
        throw refusal.of("every input needs its raw_input_contents: tensors belong in binary");
    }
    const inputs = request.inputs.map((span, i) => {
        const input = protobuf.read(body, span[0], span[1], INPUT);
        if (input.contents !== undefined) {
            throw refusal.of("tensors belong in raw_input_contents, not in contents");
        }
        if (input.parameters.length > 0) {
            throw refusal.of("an input has a parameter that is not known here");
        }
        const start = request.contents[i][0], size = request.contents[i][1] - start;
        return { name: input.name || "", datatype: input.datatype || "", shape: input.shape, start, size };
    });
    const outputs = request.outputs.map((span) => {
        const output = protobuf.read(body, span[0], span[1], OUTPUT);
        return { name: output.name || "", parameters: parameters(body, output.parameters) };
    });
    return {
        model: request.model || "",
        version: request.version || "",
        id: request.id || "",
        parameters: parameters(body, request.parameters),
        inputs,
        outputs,
    };
}

// The entries of a map, [[key, value]]. Of two with the same key a parser takes the last.
function parameters(body, spans) {
    const found = [];
    spans.forEach((span) => {
        const entry = protobuf.read(body, span[0], span[1], ENTRY);
        const choice = entry.value ? protobuf.read(body, entry.value[0], entry.value[1], PARAMETER) : {};
        const kinds = Object.keys(choice);
        if (kinds.length !== 1 || kinds[0] === "double" || (kinds[0] === "uint" && entry.key !== "priority")) {
            throw refusal.of("a parameter has no value, or one of a type that none has here");
        }
        if (found.some((other) => other[0] === entry.key)) {
            throw refusal.of("a parameter is there twice");
        }
        found.push([entry.key, kinds[0] === "bool" ? choice.bool !== 0 : choice[kinds[0]]]);
    });
    return found;
}

export default { read };
