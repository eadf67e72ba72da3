// What stands before Triton's infer: it reads a request as strictly as it can be read, compares it with the model's
// configuration, which it asks Triton for, and passes on the very bytes that it has understood, or refuses.
// Why: docs/decisions/0015-a-front-that-parses.md.

import fits from "fits.js";
import inferGrpc from "infer_grpc.js";
import inferJson from "infer_json.js";
import refusal from "refusal.js";

// What a name must not have: in njs a $ would let a line end pass.
const NOT_IN_A_NAME = /^[.-]|[^\w.-]/;
const NOT_IN_A_NUMBER = /[^0-9]/;
const PATH = /^\/v2\/models\/([^/]+)(?:\/versions\/([^/]+))?\/infer$/;

// POST /v2/models/MODEL[/versions/N]/infer
async function http(r) {
    await pass(r, "@triton_http", async () => {
        const path = PATH.exec(r.variables.request_uri);
        const body = r.requestBuffer || Buffer.alloc(0);
        const headerBytes = only(r, "inference-header-content-length");
        if (!headerBytes || NOT_IN_A_NUMBER.test(headerBytes) || Number(headerBytes) > body.length) {
            throw refusal.of("Inference-Header-Content-Length must be there once, as long as the JSON before the tensors");
        }
        const request = inferJson.read(body, Number(headerBytes));
        const config = await configuration(r, path[1], path[2] || "");
        fits.check(request, config, body);
    }, (reason) => {
        r.headersOut["Content-Type"] = "application/json"; // nginx would close the connection after its own 400
        r.return(400, JSON.stringify({ error: reason }));
    });
}

// inference.GRPCInferenceService/METHOD and grpc.health.v1.Health/Check
async function grpc(r) {
    await pass(r, "@triton_grpc", async () => {
        const body = r.requestBuffer || Buffer.alloc(0);
        const method = r.variables.request_uri.split("/")[2];
        const request = inferGrpc.read(body, method);
        if (method === "ModelInfer") {
            const config = await configuration(r, request.model, request.version);
            fits.check(request, config, body);
        }
    }, () => r.return(400));
}

async function pass(r, location, check, refuse) {
    try {
        await check();
    } catch (error) {
        if (error.refused !== undefined) {
            r.variables.refused = error.refused;
            refuse(error.refused);
            return;
        }
        if (error.status === undefined) {
            r.error(`the front failed, and refused: ${error.stack || error}`);
        }
        r.return(error.status || 500);
        return;
    }
    r.internalRedirect(location);
}

// The value of a header that must be there once: of two, which one counts is anybody's guess.
function only(r, name) {
    const found = r.rawHeadersIn.filter((header) => header[0].toLowerCase() === name);
    return found.length === 1 ? found[0][1] : "";
}

// The configuration of a model as Triton has it, at most a second old. Without it nothing is passed on.
async function configuration(r, model, version) {
    const named = model && model.length <= 256 && !NOT_IN_A_NAME.test(model);
    if (!named || version.length > 9 || NOT_IN_A_NUMBER.test(version)) {
        throw refusal.of("the model or its version has a name that none can have");
    }
    const reply = await r.subrequest(`/configuration/${model}${version && `/versions/${version}`}`);
    if (reply.status === 200) {
        return JSON.parse(reply.responseText);
    }
    if (reply.status >= 500) {
        throw { status: 502 };
    }
    throw refusal.of("Request for unknown model: there is none of this name and version here, or it is not ready");
}

export default { grpc, http };
