import { describe, expect, it } from 'vitest';
import { chatSegments, renderChat, type ChatMessage } from '../../src/data/chat.ts';
import { loadDataset } from '../../src/data/dataset.ts';
import { byteLevelTokenizer, CHATML, dummyPrefixTokenizer, jsonl, loaded, shown } from './fixtures.ts';

const TURNS: ChatMessage[] = [
  { role: 'system', content: 'be a cat' },
  { role: 'user', content: 'hi' },
  { role: 'assistant', content: 'the cat sat' },
  { role: 'user', content: 'more' },
  { role: 'assistant', content: 'a cat' },
];

/** ChatML that marks the answers. */
const TAGGED = `{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}
        {{- message.content + '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`;

/** As Qwen3 does: thinking is shown after the last question only, and the generation prompt doesn't open it. */
const THINKING = `{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
    {%- if message.role == 'assistant' and loop.index0 > ns.last %}{{ '<think>\\n' + (message.reasoning or '') + '\\n</think>\\n\\n' }}{% endif %}
    {{- content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`;

/** As Llama 2 does: the turns of user and assistant are wrapped together, with the start token in the text. */
const INST = "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}{% else %}{{ raise_exception('only user and assistant!') }}{% endif %}{% endfor %}";

const WHITE_SPACE: [string, string][] = [
  ['A\n  {% generation %}\nB\n  {% endgeneration %}\nC', 'A\n[B\n]C'],
  ['A {% generation %} B {% endgeneration %} C', 'A [ B ] C'],
  ['{{ \'h\n\' }}\n  {% generation %}\n  {{- \'x\' }}\n  {% endgeneration %}\n  {{- \'z\n\' }}', 'h\n\n[x\n]z\n'],
  ['A\n  {%- generation -%}\nB\n  {%- endgeneration -%}\nC', 'A[B]C'],
  ['A {%- generation -%} B {%- endgeneration -%} C', 'A[B]C'],
  ['{{ \'h\n\' }}\n  {%- generation -%}\n  {{- \'x\' }}\n  {%- endgeneration -%}\n  {{- \'z\n\' }}', 'h\n[x]z\n'],
  ['A\n  {%generation%}\nB\n  {%endgeneration%}\nC', 'A\n[B\n]C'],
  ['A {%generation%} B {%endgeneration%} C', 'A [ B ] C'],
  ['{{ \'h\n\' }}\n  {%generation%}\n  {{- \'x\' }}\n  {%endgeneration%}\n  {{- \'z\n\' }}', 'h\n\n[x\n]z\n'],
  ['A\n  {%-  generation %}\nB\n  {%- endgeneration %}\nC', 'A[B]C'],
  ['A {%-  generation %} B {%- endgeneration %} C', 'A[ B] C'],
  ['{{ \'h\n\' }}\n  {%-  generation %}\n  {{- \'x\' }}\n  {%- endgeneration %}\n  {{- \'z\n\' }}', 'h\n[x]z\n'],
  ['A\n  {% generation -%}\nB\n  {% endgeneration -%}\nC', 'A\n[B\n]C'],
  ['A {% generation -%} B {% endgeneration -%} C', 'A [B ]C'],
  ['{{ \'h\n\' }}\n  {% generation -%}\n  {{- \'x\' }}\n  {% endgeneration -%}\n  {{- \'z\n\' }}', 'h\n\n[x\n]z\n'],
];

/** As the first template of Llama 3: the generation prompt is always there. */
const ALWAYS_PROMPTS = CHATML.replace('{% if add_generation_prompt %}', '').replace(/{% endif %}$/, '');

async function learned(template: string, messages: ChatMessage[], tokenizer: object = byteLevelTokenizer): Promise<string> {
  const own = await loaded(tokenizer, { chat_template: template });
  const data = await loadDataset(jsonl('chat.jsonl', [{ messages }]), { tokenizer: own, maxLength: 500 });
  return shown(own, data.get(0));
}

const SHOWN = '<|im_start|>system\nbe a cat<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[the cat sat<|im_end|>~]<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n[a cat<|im_end|>~]';

describe('chat: what is learned', () => {
  it('a template with generation tags: what is between them', async () => {
    expect(await learned(TAGGED, TURNS)).toBe(SHOWN.replaceAll('~]', ']\n'));
  });

  it('a template without them: what each answer adds to the generation prompt', async () => {
    expect(await learned(CHATML, TURNS)).toBe(SHOWN.replaceAll('~]', '\n]'));
  });

  it('a template that shows the thinking of the last turn only: each answer as it stands in the text', async () => {
    const turns = TURNS.map((turn, i) => (i === 2 ? { ...turn, content: '<think>\nwell\n</think>\n\nthe cat sat' } : turn));
    expect(await learned(THINKING, turns)).toBe(SHOWN.replaceAll('~]', '\n]').replace('[a cat', '[<think>\n\n</think>\n\na cat'));
  });

  it('a template that always writes the generation prompt: up to the special token behind each answer', async () => {
    expect(await learned(ALWAYS_PROMPTS, TURNS)).toBe(SHOWN.replaceAll('~]', ']\n') + '<|im_start|>assistant\n');
  });

  it('an answer that stands in the text before it too is found in its own place', async () => {
    const turns = [{ role: 'user', content: 'a cat' }, { role: 'assistant', content: 'a cat' }, { role: 'user', content: 'a cat' }, { role: 'assistant', content: 'a cat' }];
    for (const [template, tail] of [[CHATML, '\n]'], [ALWAYS_PROMPTS, ']\n'], [TAGGED, ']\n']] as const) {
      const turn = `<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n[a cat<|im_end|>${tail}`;
      expect(await learned(template, turns)).toBe(turn + turn + (template === ALWAYS_PROMPTS ? '<|im_start|>assistant\n' : ''));
    }
  });

  it('a dummy-prefix tokenizer gets no space at the borders that the text does not have', async () => {
    const own = await loaded(dummyPrefixTokenizer, { chat_template: INST });
    const sample = (await loadDataset(jsonl('inst.jsonl', [{ messages: TURNS.slice(1) }]), { tokenizer: own, maxLength: 500 })).get(0);
    // Behind a special token this tokenizer starts a word; at the borders of the answers it must not.
    expect(own.decode([...sample.inputIds])).toBe('<s> [INST] hi [/INST] the cat sat </s><s> [INST] more [/INST] a cat </s>');
    // (One by one the stretches lose the space they begin with, as every text does that this tokenizer decodes.)
    expect(shown(own, sample)).toBe('<s> [INST] hi [/INST][the cat sat </s>]<s> [INST] more [/INST][a cat </s>]');
  });

  it('a conversation that the assistant opens is learned from the start', async () => {
    expect(await learned(CHATML, [{ role: 'assistant', content: 'hi' }])).toBe('[<|im_start|>assistant\nhi<|im_end|>\n]');
  });

  it('segments joined are the rendered text, with and without tags', async () => {
    for (const chat_template of [TAGGED, CHATML, THINKING]) {
      const tokenizer = await loaded(byteLevelTokenizer, { chat_template });
      expect(chatSegments(tokenizer, TURNS).map(({ text }) => text).join('')).toBe(renderChat(tokenizer, TURNS));
    }
  });

  // What Jinja2 3.1.6 makes of each with transformers' own {% generation %} extension, trim_blocks and lstrip_blocks.
  it.each(WHITE_SPACE)('white space around the tags is what Jinja2 leaves of it: %j', async (chat_template, expected) => {
    const tokenizer = await loaded(byteLevelTokenizer, { chat_template });
    const segments = chatSegments(tokenizer, TURNS);
    expect(segments.map(({ text, trained }) => (trained ? `[${text}]` : text)).join('')).toBe(expected);
    expect(renderChat(tokenizer, TURNS)).toBe(segments.map(({ text }) => text).join(''));
  });
});

describe('renderChat', () => {
  it('ends where the answer begins when asked to', async () => {
    const tokenizer = await loaded();
    expect(renderChat(tokenizer, TURNS.slice(1, 2))).toBe('<|im_start|>user\nhi<|im_end|>\n');
    expect(renderChat(tokenizer, TURNS.slice(1, 2), { addGenerationPrompt: true })).toBe('<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n');
  });

  it('hands the template its special tokens and the tools', async () => {
    const tokenizer = await loaded(byteLevelTokenizer, { chat_template: '{{ bos_token }}|{{ eos_token }}|{% if tools %}{{ tools | tojson }}{% else %}none{% endif %}' });
    expect(renderChat(tokenizer, TURNS)).toBe('<s>|</s>|none');
    expect(renderChat(tokenizer, TURNS, { tools: [{ name: 'purr' }] })).toBe('<s>|</s>|[{"name": "purr"}]');
  });

  it('a row may bring tools', async () => {
    const own = await loaded(byteLevelTokenizer, { chat_template: `{{ tools | length if tools else 'no' }} tools\n${CHATML}` });
    const data = await loadDataset(jsonl('tools.jsonl', [{ messages: TURNS, tools: [{ name: 'purr' }] }, { messages: TURNS, tools: [] }]), { tokenizer: own, maxLength: 500 });
    expect([0, 1].map((i) => shown(own, data.get(i)).split('\n')[0])).toEqual(['1 tools', 'no tools']);
  });
});

describe('chat: refusals', () => {
  it('a model without a template is told so once, with what to do', async () => {
    const tokenizer = await loaded(byteLevelTokenizer, { chat_template: null });
    expect(() => renderChat(tokenizer, TURNS)).toThrow(expect.objectContaining({ code: 'ERR_UNSUPPORTED', message: expect.stringContaining('use "prompt" and "completion"') as string }));
    await expect(loadDataset(jsonl('no-template.jsonl', [{ messages: TURNS }]), { tokenizer, maxLength: 9 })).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED' });
  });

  it("what the template raises is told with the row's line", async () => {
    const tokenizer = await loaded(byteLevelTokenizer, { chat_template: INST });
    const file = jsonl('raise.jsonl', [{ text: 'a' }, { messages: TURNS }]);
    await expect(loadDataset(file, { tokenizer, maxLength: 99 })).rejects.toThrow(`${file}:2: chat template: must accept the messages (it says: only user and assistant!)`);
  });

  it('a template that is no Jinja', async () => {
    const tokenizer = await loaded(byteLevelTokenizer, { chat_template: '{% for %}' });
    expect(() => renderChat(tokenizer, TURNS)).toThrow(expect.objectContaining({ code: 'ERR_FORMAT' }));
  });

  it('a template that hides where the assistant speaks', async () => {
    const tokenizer = await loaded(byteLevelTokenizer, { chat_template: '{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}' });
    expect(() => chatSegments(tokenizer, TURNS)).toThrow(expect.objectContaining({ code: 'ERR_DATA', message: expect.stringContaining('{% generation %}') as string }));
  });

  it('messages that hold the marks themselves', async () => {
    const tokenizer = await loaded(byteLevelTokenizer, { chat_template: TAGGED });
    expect(() => chatSegments(tokenizer, [{ role: 'assistant', content: '\uF5A1' }])).toThrow('found U+F5A1');
  });
});
