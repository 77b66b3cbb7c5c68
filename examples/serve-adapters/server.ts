// One base model, many adapters, switched for each request.
//
//   npx tsx examples/serve-adapters/server.ts ./SmolLM-135M german=./out/german legal=./out/legal
//   curl -d '{"adapter": "german", "prompt": "Guten Tag", "maxTokens": 20}' http://127.0.0.1:8080/generate
//
// A request names its adapter, or null for the base; its prompt is a text, or token ids. The answer comes token by token, a line of JSON
// each. Requests run side by side: each token is made under its own request's adapter, and switching costs a few microseconds.
import { existsSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { generate, type GeneratedToken, type GenerateEnd, loadAdapter, loadModel, loadTokenizer, LowrankError, type Model, openDevice, setAdapter, type Tokenizer } from 'lowrank';

interface Request {
  readonly adapter: string | null;
  readonly prompt: string | readonly number[];
  readonly maxTokens: number;
}

interface Server {
  readonly model: Model;
  readonly tokenizer: Tokenizer | null;
  /** One after the other, each with the model to itself: a token, under one adapter. */
  turn<T>(work: () => Promise<T>): Promise<T>;
}

function makeTurns(): Server['turn'] {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const mine = last.then(work);
    last = mine.catch(() => undefined);
    return mine;
  };
}

async function readRequest(incoming: IncomingMessage): Promise<Request> {
  let body = '';
  for await (const chunk of incoming.setEncoding('utf8')) {
    body += chunk as string;
    if (body.length > 1 << 20) throw new LowrankError('ERR_ARGUMENT', 'request: must have at most 1 MiB');
  }
  const { adapter = null, prompt, maxTokens = 64 } = JSON.parse(body) as Partial<Request>;
  const isPrompt = typeof prompt === 'string' || (Array.isArray(prompt) && prompt.every((id) => Number.isInteger(id)));
  if (!isPrompt) throw new LowrankError('ERR_ARGUMENT', 'request: `prompt` must be a text or token ids');
  if (adapter !== null && typeof adapter !== 'string') throw new LowrankError('ERR_ARGUMENT', 'request: `adapter` must be a name or null');
  return { adapter, prompt, maxTokens };
}

/** Each token of one request, in turn with those of others. */
async function* answer({ model, tokenizer, turn }: Server, { adapter, prompt, maxTokens }: Request): AsyncGenerator<GeneratedToken> {
  const tokens = generate(model, tokenizer, prompt, { maxTokens });
  const next = (): Promise<IteratorResult<GeneratedToken, GenerateEnd>> => {
    setAdapter(model, adapter);
    return tokens.next();
  };
  try {
    for (let result = await turn(next); result.done !== true; result = await turn(next)) yield result.value;
  } finally {
    await turn(() => tokens.return('aborted')); // gives the cache back where the caller has gone
  }
}

async function respond(server: Server, incoming: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    for await (const token of answer(server, await readRequest(incoming))) {
      if (response.destroyed) return;
      response.write(`${JSON.stringify(token)}\n`);
    }
    response.end();
  } catch (error) {
    if (!response.headersSent) response.statusCode = error instanceof LowrankError && error.code !== 'ERR_ARGUMENT' ? 500 : 400;
    response.end(`${JSON.stringify({ error: error instanceof Error ? error.message : String(error) })}\n`);
  }
}

const [folder = '', ...named] = process.argv.slice(2);
await using device = await openDevice('auto');
const model = await loadModel(folder, { device });
for (const adapter of named) {
  const [name = '', ...where] = adapter.split('=');
  await loadAdapter(model, where.join('='), { name, trainable: false });
}
const tokenizer = existsSync(path.join(folder, 'tokenizer.json')) ? await loadTokenizer(folder) : null;
const server: Server = { model, tokenizer, turn: makeTurns() };
const http = createServer((incoming, response) => void respond(server, incoming, response));
http.listen(Number(process.env['PORT'] ?? 8080), '127.0.0.1', () => console.log(`http://127.0.0.1:${(http.address() as AddressInfo).port}/generate`));
await new Promise((resolve) => process.once('SIGTERM', resolve).once('SIGINT', resolve));
http.close();
http.closeAllConnections();
model.dispose();
