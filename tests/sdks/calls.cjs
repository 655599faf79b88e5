// Calls of the openai and the Anthropic SDK of Node through a proxy, for node_calls.py.
// Arguments: base URL of the proxy, key, a scenario's name. Prints one JSON value.
const OpenAI = require('openai');
const Anthropic = require('@anthropic-ai/sdk');

const [root, apiKey, scenario] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${root}/v1`, apiKey, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: root, apiKey, maxRetries: 0 });
const messages = [{ role: 'user', content: 'hi' }];

const scenarios = {
  async whole() {
    const answer = await openai.chat.completions.create({ model: 'm', messages });
    const other = await anthropic.messages.create({ model: 'm', max_tokens: 9, messages });
    return [answer.choices[0].message.content, other.content[0].text];
  },
  async stream() {
    const words = [];
    for await (const part of await openai.chat.completions.create({ model: 'm', messages, stream: true })) {
      if (part.choices.length) words.push(part.choices[0].delta.content ?? '');
    }
    return words.join('');
  },
  async abort() {
    const stream = await openai.chat.completions.create({ model: 'm', messages, stream: true });
    for await (const part of stream) {
      stream.controller.abort();
      return part.choices[0].delta.content;
    }
  },
  async refused() {
    const told = {};
    for (const [name, call] of Object.entries({
      openai: () => openai.chat.completions.create({ model: 'm', messages }),
      anthropic: () => anthropic.messages.create({ model: 'm', max_tokens: 9, messages }),
    })) {
      try {
        await call();
      } catch (error) {
        told[name] = [error.constructor.name, error.status, error.headers.get('retry-after')];
      }
    }
    return told;
  },
};

scenarios[scenario]().then(
  (value) => { console.log(JSON.stringify(value)); process.exit(0); },
  (error) => { console.error(error); process.exit(1); },
);
