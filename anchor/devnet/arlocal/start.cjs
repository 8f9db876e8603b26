// Starts arlocal on 127.0.0.1. It has no option for the address and would listen on every
// interface, so the address is put in where Node's servers begin to listen.
//
// usage: node start.cjs [port] [database directory]
//
// Port 0, the default, is any free one; the line READY tells which. The server ends at
// SIGTERM, and when its standard input does, so that it does not outlive its parent.
'use strict';

const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');

const port = Number(process.argv[2] ?? 0);
const given = process.argv[3];
const dir = given ?? fs.mkdtempSync(path.join(os.tmpdir(), 'arlocal-'));

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (_, ...rest) {
  const ready = rest.filter((arg) => typeof arg === 'function');
  return listen.call(this, { port, host: '127.0.0.1' }, ...ready);
};

// It would write every request into a file of the working directory.
require('arlocal/bin/utils/logging').default.prototype.logInFile = () => {};

const { default: ArLocal } = require('arlocal');
const server = new ArLocal(port, process.env.ARLOCAL_LOGS === '1', dir, false);

let stopping = false;
function stop() {
  if (stopping) return;
  stopping = true;
  if (given === undefined) fs.rmSync(dir, { recursive: true, force: true });
  process.exit(0);
}
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, stop);
process.stdin.on('end', stop).on('error', stop).resume();

server.start().then(() => {
  const { server: http } = server;
  const ready = () => console.log(`READY http://127.0.0.1:${http.address().port}`);
  if (http.listening) ready();
  else http.once('listening', ready);
});
