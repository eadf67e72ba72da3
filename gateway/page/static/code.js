// The request as a program makes it: curl, Python, JavaScript. What was typed is quoted for each language.

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const KEY = "YOUR-KEY";

export const languages = {
  curl(request, origin) {
    const body = request.shown === null ? `--data ${shell(request.body)}` : `--data-binary ${shell(`@${request.shown}`)}`;
    return [
      `curl ${shell(origin + request.path)}`,
      `  --header 'Authorization: Bearer ${KEY}'`,
      `  --header ${shell(`Content-Type: ${request.type}`)}`,
      `  ${body}`,
    ].join(" \\\n");
  },
  Python(request, origin) {
    const body = request.shown === null ? `${JSON.stringify(request.body)}.encode()` : `Path(${JSON.stringify(request.shown)}).read_bytes()`;
    return [
      "import json",
      "import urllib.request",
      ...(request.shown === null ? [] : ["from pathlib import Path"]),
      "",
      `headers = {"Authorization": "Bearer ${KEY}", "Content-Type": ${JSON.stringify(request.type)}}`,
      `request = urllib.request.Request(${JSON.stringify(origin + request.path)}, ${body}, headers)`,
      "with urllib.request.urlopen(request, timeout=30) as response:",
      "    print(json.load(response))",
    ].join("\n");
  },
  JavaScript(request, origin) {
    const body = request.shown === null ? JSON.stringify(request.body) : `await readFile(${JSON.stringify(request.shown)})`;
    return [
      ...(request.shown === null ? [] : ['import { readFile } from "node:fs/promises";', ""]),
      `const response = await fetch(${JSON.stringify(origin + request.path)}, {`,
      '  method: "POST",',
      `  headers: { Authorization: "Bearer ${KEY}", "Content-Type": ${JSON.stringify(request.type)} },`,
      `  body: ${body},`,
      "});",
      "console.log(await response.json());",
    ].join("\n");
  },
};
