// The wire format of protocol buffers, as far as requests to Triton need it, and strictly: fields that are not known,
// of another wire type, or twice where there can be one, are refused. Parsers would skip them, merge them or take the
// last. https://protobuf.dev/programming-guides/encoding

import refusal from "refusal.js";

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const MOST_INTS = 64; // of a shape
const MOST_FIELDS = 1000; // of a message: others wait while it is read
const WIRE = { bool: VARINT, int: VARINT, double: FIXED64, string: BYTES, bytes: BYTES, message: BYTES, ints: BYTES };

// Read the message in buffer[start:end].
//
// fields: {number: [name, kind, repeated]}; kind is bool, int, double, string, bytes, message or ints, the last of
//   which may be packed or not.
// Returns {name: value}; those that are not there are undefined, or [] where there can be several. Strings are strings,
//   bytes and messages [start, end].
function read(buffer, start, end, fields) {
    const message = {};
    const numbers = Object.keys(fields);
    for (let i = 0; i < numbers.length; i++) {
        if (fields[numbers[i]][2]) {
            message[fields[numbers[i]][0]] = [];
        }
    }
    const cursor = { at: start };
    for (let found = 0; cursor.at < end; found++) {
        if (found === MOST_FIELDS) {
            throw refusal.of(`the message has more than ${MOST_FIELDS} fields`);
        }
        const tag = buffer[cursor.at++]; // of fields up to 15: a byte
        const field = fields[tag >> 3];
        if (field === undefined || tag > 127) {
            throw refusal.of("the message has a field that is not known here");
        }
        const name = field[0];
        if (field[2]) {
            value(buffer, cursor, end, field[1], tag & 7).forEach((one) => message[name].push(one));
        } else if (message[name] === undefined) {
            message[name] = value(buffer, cursor, end, field[1], tag & 7)[0];
        } else {
            throw refusal.of("the message has a field twice");
        }
    }
    return message;
}

// Read what a field has at the cursor: one value, or of ints as many as are packed.
function value(buffer, cursor, end, kind, wire) {
    if (wire !== WIRE[kind] && !(kind === "ints" && wire === VARINT)) {
        throw refusal.of("a field of the message has another type");
    }
    if (wire === VARINT) {
        return [varint(buffer, cursor, end)];
    }
    const length = wire === BYTES ? varint(buffer, cursor, end) : 8;
    const start = cursor.at, stop = start + length;
    if (!(stop <= end)) {
        throw refusal.of("the message ends in a field");
    }
    cursor.at = stop;
    if (kind === "ints") {
        const found = [], inner = { at: start };
        while (inner.at < stop && found.length < MOST_INTS) {
            found.push(varint(buffer, inner, stop));
        }
        if (inner.at < stop) {
            throw refusal.of(`the message has more than ${MOST_INTS} numbers in a field`);
        }
        return found;
    }
    return [kind === "string" ? string(buffer, start, stop) : [start, stop]];
}

// Read a number up to 2^64 at the cursor, beyond 2^53 not exactly: what must be exact is bounded far below that.
// Negative numbers are huge ones here.
function varint(buffer, cursor, end) {
    let number = 0, scale = 1;
    for (let i = 0; i < 10 && cursor.at < end; i++) {
        const byte = buffer[cursor.at++];
        number += (byte & 127) * scale;
        if (byte < 128) {
            return number;
        }
        scale *= 128;
    }
    throw refusal.of("a number in the message does not end");
}

function string(buffer, start, end) {
    const text = buffer.toString("utf8", start, end);
    if (text.indexOf("\ufffd") >= 0) {
        throw refusal.of("a string in the message is not valid UTF-8");
    }
    return text;
}

export default { read };
