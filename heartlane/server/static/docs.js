// Lays out /openapi.json for people. Everything is put into the page as text, never as markup.

const METHODS = ["get", "post", "put", "patch", "delete"];
const reference = document.getElementById("reference");
const contents = document.getElementById("contents");
const filter = document.getElementById("filter");

/** An element with attributes and children; strings become text. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Inline text of descriptions: `code` and **strong**, nothing else. */
function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith("`") && part.length > 1) return make("code", {}, part.slice(1, -1));
    if (part.startsWith("**") && part.length > 3) return make("strong", {}, part.slice(2, -2));
    return part;
  });
}

function paragraphs(text) {
  return (text ?? "").split(/\n\s*\n/).filter(Boolean).map((block) => make("p", {}, inline(block)));
}

function pretty(value) {
  return make("pre", { tabindex: "0" }, make("code", {}, JSON.stringify(value, null, 2)));
}

class Reader {
  constructor(api) {
    this.api = api;
  }

  resolve(node) {
    const seen = new Set();
    while (node && node.$ref && !seen.has(node.$ref)) {
      seen.add(node.$ref);
      node = node.$ref.slice(2).split("/").reduce((at, key) => at?.[key], this.api);
    }
    return node ?? {};
  }

  /** A schema's type in a few words: `string 1–200`, `array of EventBody, up to 100`. */
  type(schema) {
    const name = schema.$ref ? schema.$ref.split("/").pop() : "";
    const at = this.resolve(schema);
    if (name && at.properties) return name;
    const choices = at.anyOf ?? at.oneOf;
    if (choices) return choices.map((choice) => this.type(choice)).join(" or ");
    if ("const" in at) return JSON.stringify(at.const);
    if (at.enum) return at.enum.map((value) => JSON.stringify(value)).join(" · ");
    if (at.type === "array") return `array of ${this.type(at.items ?? {})}${this.range(at.minItems, at.maxItems)}`;
    if (at.type === "object" && at.additionalProperties && at.additionalProperties !== true) {
      return `object of ${this.type(at.additionalProperties)}${this.range(at.minProperties, at.maxProperties)}`;
    }
    const word = [at.type ?? "any"].flat().join(" or ");
    // Bounds that only say "64 bits" tell a reader nothing, and JavaScript can't print them.
    const most = Math.abs(at.maximum) > Number.MAX_SAFE_INTEGER ? undefined : at.maximum;
    const range = this.range(at.minLength ?? at.minimum, at.maxLength ?? most);
    return `${word}${at.format ? ` (${at.format})` : ""}${range}`;
  }

  range(least, most) {
    if (least === undefined && most === undefined) return "";
    if (most === undefined) return `, at least ${least}`;
    return least === undefined ? `, up to ${most}` : `, ${least}–${most}`;
  }

  fields(schema, path = "", seen = []) {
    const at = this.resolve(schema);
    const rows = [];
    for (const [name, field] of Object.entries(at.properties ?? {})) {
      rows.push(this.row(path + name, field, (at.required ?? []).includes(name)));
      const inner = this.inner(field);
      if (inner && !seen.includes(inner.$ref)) {
        rows.push(...this.fields(inner, `${path}${name}${this.isList(field) ? "[]" : ""}.`, [...seen, inner.$ref]));
      }
    }
    return rows;
  }

  isList(schema) {
    return this.resolve(schema).type === "array";
  }

  /** The object within a field, where it has named fields of its own. */
  inner(schema) {
    const at = this.resolve(schema);
    const candidates = [schema, at.items, ...(at.anyOf ?? [])].filter(Boolean);
    return candidates.find((each) => each.$ref && this.resolve(each).properties);
  }

  row(name, schema, required) {
    const at = this.resolve(schema);
    const fallback = at.default === undefined ? "" : ` Default: \`${JSON.stringify(at.default)}\`.`;
    return make(
      "tr",
      {},
      make("td", {}, make("code", {}, name), required ? make("span", { class: "required" }, " required") : null),
      make("td", {}, this.type(schema)),
      make("td", {}, inline(`${schema.description ?? at.description ?? ""}${fallback}`.trim())),
    );
  }

  table(rows) {
    const head = make("tr", {}, ...["Field", "Type", "Meaning"].map((title) => make("th", { scope: "col" }, title)));
    return make("table", {}, make("thead", {}, head), make("tbody", {}, rows));
  }

  parameters(operation) {
    const parameters = (operation.parameters ?? []).map((each) => this.resolve(each));
    if (!parameters.length) return null;
    const rows = parameters.map((each) => {
      const schema = { description: each.description, ...each.schema };
      return this.row(each.in === "path" ? `{${each.name}}` : `?${each.name}`, schema, each.required);
    });
    return make("div", {}, make("h4", {}, "Parameters"), this.table(rows));
  }

  body(operation) {
    const media = operation.requestBody?.content?.["application/json"];
    if (!media) return null;
    const schemas = media.schema.anyOf ?? [media.schema];
    const parts = schemas.map((schema) =>
      make("div", {}, paragraphs(this.resolve(schema).description), this.table(this.fields(schema))),
    );
    return make("div", {}, make("h4", {}, operation.requestBody.required ? "Body" : "Body (may be left out)"), parts);
  }

  /** The request as a line for the shell. */
  curl(method, path, operation) {
    const media = operation.requestBody?.content?.["application/json"];
    const examples = Object.entries(media?.examples ?? { plain: {} });
    return examples.map(([, example]) => {
      const lines = [`curl --request ${method.toUpperCase()} '${window.location.origin}${path}'`];
      if (operation.security?.length) lines.push(`--header "Authorization: Bearer $HEARTLANE_TOKEN"`);
      if (example.value !== undefined) {
        lines.push("--header 'Content-Type: application/json'");
        lines.push(`--data '${JSON.stringify(example.value).replaceAll("'", "'\\''")}'`);
      }
      const text = lines.join(" \\\n  ");
      const copy = make("button", { class: "copy", type: "button" }, "Copy");
      copy.addEventListener("click", async () => {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
        window.setTimeout(() => { copy.textContent = "Copy"; }, 1500);
      });
      const block = make("pre", { tabindex: "0" }, make("code", {}, text));
      return make("div", {}, make("p", {}, example.summary ? `${example.summary} ` : "", copy), block);
    });
  }

  responses(operation) {
    return Object.entries(operation.responses).map(([status, response]) => {
      const at = this.resolve(response);
      const media = at.content?.["application/json"] ?? {};
      const examples = media.examples ? Object.entries(media.examples) : [];
      const codes = examples.map(([code]) => code).join(", ");
      const parts = [];
      if (media.schema && status.startsWith("2")) parts.push(this.table(this.fields(media.schema)));
      if (media.example !== undefined) parts.push(pretty(media.example));
      for (const [code, example] of examples) {
        parts.push(make("p", {}, make("code", {}, code), ` ${example.summary ?? ""}`), pretty(example.value));
      }
      const title = make(
        "summary",
        {},
        make("strong", { class: `status-${status[0]}` }, status),
        ` ${at.description} `,
        codes ? make("small", {}, codes) : null,
      );
      return make("details", {}, title, parts);
    });
  }

  operation(path, method, operation) {
    return make(
      "section",
      { class: "operation", id: operation.operationId },
      make("h3", {}, operation.summary ?? operation.operationId),
      make("p", { class: "route" }, make("span", { class: `method ${method}` }, method), " ", make("code", {}, path)),
      paragraphs(operation.description),
      this.parameters(operation),
      this.body(operation),
      make("h4", {}, "Request"),
      this.curl(method, path, operation),
      make("h4", {}, "Answers"),
      this.responses(operation),
    );
  }

  show() {
    const byTag = new Map((this.api.tags ?? []).map((tag) => [tag.name, { ...tag, operations: [] }]));
    for (const [path, item] of Object.entries(this.api.paths)) {
      for (const method of METHODS.filter((each) => item[each])) {
        const name = item[method].tags?.[0] ?? "Other";
        if (!byTag.has(name)) byTag.set(name, { name, operations: [] });
        byTag.get(name).operations.push([path, method, item[method]]);
      }
    }
    reference.replaceChildren(
      make("h1", {}, this.api.info.title, " ", make("small", {}, this.api.info.version)),
      ...paragraphs(this.api.info.description),
    );
    contents.replaceChildren();
    for (const tag of [...byTag.values()].filter((each) => each.operations.length)) {
      reference.append(make("h2", {}, tag.name), ...paragraphs(tag.description));
      const list = make("ul");
      contents.append(make("h2", {}, tag.name), list);
      for (const [path, method, operation] of tag.operations) {
        const section = this.operation(path, method, operation);
        const text = `${method} ${path} ${operation.summary ?? ""}`;
        const link = make(
          "a",
          { href: `#${operation.operationId}`, title: `${method.toUpperCase()} ${path}` },
          make("span", { class: `method ${method}` }, method),
          ` ${operation.summary ?? path}`,
        );
        const entry = make("li", {}, link);
        entry.words = section.words = `${text} ${section.textContent}`.toLowerCase();
        list.append(entry);
        reference.append(section);
      }
    }
    reference.setAttribute("aria-busy", "false");
    document.getElementById(window.location.hash.slice(1))?.scrollIntoView();
  }
}

filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const element of document.querySelectorAll("section.operation, #contents li")) {
    element.hidden = !words.every((word) => element.words.includes(word));
  }
});

try {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  new Reader(await response.json()).show();
} catch (error) {
  reference.replaceChildren(make("p", { class: "notice" }, `The reference can't be shown: ${error.message}.`));
  reference.setAttribute("aria-busy", "false");
}
