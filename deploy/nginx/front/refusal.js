// Why a request is not passed on. Reasons hold no text of the request: they are put into JSON, headers and logs.

function of(reason) {
    const error = new Error(reason);
    error.refused = reason;
    return error;
}

export default { of };
