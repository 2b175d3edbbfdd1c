// SPDX-License-Identifier: Apache-2.0
// The tour with the etcd3 client of npm, as its users use it.
'use strict';

const fs = require('fs');
const { Etcd3 } = require('etcd3');

const { KEYWAY_TEST_CACERT: ca, KEYWAY_TEST_CERT: cert, KEYWAY_TEST_KEY: key } = process.env;
const client = new Etcd3(ca ? {
  hosts: [`https://${process.argv[2]}`],
  credentials: {
    rootCertificate: fs.readFileSync(ca),
    certChain: fs.readFileSync(cert),
    privateKey: fs.readFileSync(key),
  },
} : { hosts: [`http://${process.argv[2]}`] });

function pair(kv) {
  return `${kv.key}=${kv.value}(c${kv.create_revision} m${kv.mod_revision} v${kv.version}` +
    `${kv.lease !== '0' ? ' leased' : ''})`;
}

function say(step, ...values) {
  console.log(step + ':', ...values.map((v) => (typeof v === 'string' ? v : JSON.stringify(v))));
}

async function attempt(step, action) {
  try {
    say(step, await action());
  } catch (error) {
    say(step, error.constructor.name, error.message);
  }
}

function events(watcher, count) {
  return new Promise((resolve, reject) => {
    const seen = [];
    const timer = setTimeout(() => reject(new Error(`only ${seen.length} events`)), 15000);
    watcher.on('data', (reply) => {
      for (const event of reply.events) {
        seen.push(`${event.type} ${pair(event.kv)} prev ${event.prev_kv ? pair(event.prev_kv) : '-'}`);
      }
      if (seen.length >= count) {
        clearTimeout(timer);
        resolve(seen);
      }
    });
    watcher.on('error', reject);
  });
}

async function main() {
  for (const name of 'abcd') {
    const reply = await client.put(`k/${name}`).value(`1${name}`);
    say('put', reply.header.revision);
  }
  say('put prev', (await client.put('k/b').value('2b').getPrevious()).value.toString());
  say('get', await client.get('k/b').string());
  say('get missing', await client.get('none').string());
  say('get old', await client.get('k/b').revision(3).string());
  say('prefix', await client.getAll().prefix('k/').strings());
  say('keys', await client.getAll().prefix('k/').keys());
  say('limit', await client.getAll().prefix('k/').limit(2).keys());
  say('count', await client.getAll().prefix('k/').count());
  say('sorted', await client.getAll().prefix('k/').sort('Mod', 'Descend').keys());
  say('exec', (await client.getAll().prefix('k/').exec()).kvs.map(pair));
  await attempt('future', () => client.get('k/b').revision(1000).string());
  await attempt('empty key', () => client.put('').value('x'));

  const first = await client.if('t', 'Create', '==', 0).then(client.put('t').value('1'))
    .else(client.get('t')).commit();
  const second = await client.if('t', 'Create', '==', 0).then(client.put('t').value('1'))
    .else(client.get('t')).commit();
  say('txn', first.succeeded, second.succeeded, second.responses[0].response_range.kvs.map(pair));
  say('delete', (await client.delete().key('k/a')).deleted, (await client.delete().key('k/a')).deleted);
  say('delete range', (await client.delete().inRange('k/c', 'k/d')).deleted);

  const history = await client.watch().prefix('k/').startRevision('2').withPreviousKV().watcher();
  say('watch history', await events(history, 7));
  await history.cancel();
  const live = await client.watch().key('live').create();
  const coming = events(live, 3);
  await client.put('live').value('1');
  await client.put('live').value('2');
  await client.delete().key('live');
  say('watch live', await coming);
  await live.cancel();

  const lease = client.lease(100);
  await lease.put('l/a').value('1');
  say('leased', (await client.getAll().prefix('l/').exec()).kvs.map(pair));
  await lease.revoke();
  say('after revoke', await client.getAll().prefix('l/').keys());
  const short = client.lease(1, { autoKeepAlive: false });
  await short.put('s/a').value('1');
  const expiry = await client.watch().prefix('s/').startRevision('2').watcher();
  say('expiry', (await events(expiry, 2)).map((line) => line.split(' ')[0]));
  await expiry.cancel();

  await client.lock('lock').ttl(20).do(async () => say('lock', 'held'));
  const status = await client.maintenance.status();
  say('status', status.leader !== '0', status.version.split('.').slice(0, 2).join('.'));
  const members = await client.cluster.memberList({});
  say('members', members.members.length > 0, members.members[0].name !== '');
  const revision = Number((await client.get('k/b').exec()).header.revision);
  await client.kv.compact({ revision: String(revision - 1) });
  await attempt('compact again', () => client.kv.compact({ revision: String(revision - 1) }));
  await attempt('get compacted', () => client.get('k/b').revision(2).string());
  await attempt('watch compacted', async () => {
    const old = await client.watch().prefix('k/').startRevision('2').watcher();
    return events(old, 1);
  });
  client.close();
}

main().then(() => process.exit(0), (error) => {
  console.log('failed:', error);
  process.exit(1);
});
