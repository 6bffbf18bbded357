// imapflow (node): the same bodies by one fetch of all, consumed as they come, in the clear and uncompressed like the
// other sides.
//
// Arguments: folder that has node_modules, host, port, user, password, highest UID.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const [folder, host, port, user, pass, lastUid] = process.argv.slice(2);
const { ImapFlow } = createRequire(join(folder, 'package.json'))('imapflow');

const client = new ImapFlow({
    host,
    port: Number(port),
    secure: false,
    doSTARTTLS: false,
    disableCompression: true,
    disableAutoIdle: true,
    auth: { user, pass },
    logger: false
});
await client.connect();
await client.mailboxOpen('INBOX', { readOnly: true });
let messages = 0;
let bytes = 0;
const cpu = process.cpuUsage();
const began = process.hrtime.bigint();
for await (const message of client.fetch(`1:${lastUid}`, { uid: true, source: true }, { uid: true })) {
    messages += 1;
    bytes += message.source.length;
}
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
const used = process.cpuUsage(cpu);
console.log(JSON.stringify({ seconds, cpu_seconds: (used.user + used.system) / 1e6, messages, bytes }));
client.close();
process.exit(0);
