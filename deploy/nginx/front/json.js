// Strict JSON: what is left over here for two parsers to disagree about is refused.

import refusal from "refusal.js";

// Escaped characters beyond 16 bits are two, a high and a low surrogate; one alone is none.
const PAIR = "u[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2}";
const ESCAPED = `\\\\(?:["\\\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|${PAIR})`;
const STRING = new RegExp(`"(?:[^"\\\\\\x00-\\x1f]|${ESCAPED})*"`, "g");
// What may stand between strings. JSON.parse of njs takes more: 04, for one, which Triton does not.
const ELSE = /true|false|null|(?:0|-?[1-9][0-9]*)(?![0-9])|[{}[\]:, \t\r\n]/g;

// Parse a text in which all numbers are whole and no object has a key twice, at any level.
// Triton takes the first of two equal keys and most parsers the last, so neither is passed on.
function parse(text) {
    let value;
    try {
        value = JSON.parse(text);
    } catch (error) {
        throw refusal.of("the JSON of the request is not valid");
    }
    // It is valid, so what lies between the strings has as many colons as there are keys.
    const between = text.replace(STRING, "s");
    if (between.split(":").length - 1 !== keys(value)) {
        throw refusal.of("the JSON of the request has a key twice");
    }
    if (/[0-9][.eE]|-0/.test(between)) {
        throw refusal.of("a number in the JSON of the request is not whole");
    }
    if (/[^s]/.test(between.replace(ELSE, ""))) {
        throw refusal.of("the JSON of the request is not valid");
    }
    return value;
}

// Count the keys of a value, with those of what is in it. JSON.parse takes at most 32 levels.
function keys(value) {
    if (value === null || typeof value !== "object") {
        return 0;
    }
    const names = Object.keys(value);
    let found = Array.isArray(value) ? 0 : names.length;
    for (let i = 0; i < names.length; i++) {
        found += keys(value[names[i]]);
    }
    return found;
}

export default { parse };
