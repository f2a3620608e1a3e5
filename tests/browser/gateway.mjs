// One gateway of its own for a test: started in an empty state directory, driven from outside only, stopped by SIGTERM.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, watch } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { waitFor, within } from './wait.mjs';

const run = promisify(execFile);

export const BIN = path.resolve(
  process.env.CROSSPATCH_BIN ?? fileURLToPath(new URL('../../target/debug/crosspatch', import.meta.url)),
);

export const CHANNELS = ['ops', 'medical', 'security', 'logistics'];

export class Gateway {
  #child;
  #ended;

  /** Starts the demo event, with `args` added to its command line, and returns when it says that it is ready. */
  static start(...args) {
    return Gateway.launch(['--demo', ...args]);
  }

  /** Starts it with this command line and environment, and returns when it says that it is ready. */
  static async launch(args, env = process.env) {
    assert.ok(existsSync(BIN), `there is no gateway at ${BIN}: build it, or name it in CROSSPATCH_BIN`);
    const gateway = new Gateway();
    gateway.dir = mkdtempSync(path.join(tmpdir(), 'crosspatch-test-'));
    gateway.#spawn(args, env);
    try {
      gateway.ready = await gateway.#untilReady();
    } catch (error) {
      gateway.#child.kill('SIGKILL');
      throw error;
    }
    return gateway;
  }

  #spawn(args, env) {
    const log = openSync(this.#logFile, 'w');
    const own = ['run', '--listen', '127.0.0.1:0', '--media-port', '0', '--state-dir', this.dir];
    this.#child = spawn(BIN, [...own, ...args], { env, stdio: ['ignore', log, log] });
    closeSync(log);
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', (error) => resolve({ error }));
      this.#child.once('exit', (code, signal) => resolve({ code, signal }));
    });
    const orphaned = () => this.#child.kill('SIGKILL');
    process.once('exit', orphaned);
    this.#ended.then(() => process.off('exit', orphaned));
  }

  async #untilReady() {
    const file = path.join(this.dir, 'ready.json');
    const watcher = watch(this.dir);
    const written = new Promise((resolve) => {
      const look = () => {
        try {
          resolve(JSON.parse(readFileSync(file, 'utf8')));
        } catch {
          // not there, or not whole yet: the next change of the directory looks again
        }
      };
      watcher.on('change', look);
      look();
    });
    const died = this.#ended.then((end) => {
      throw new Error(`the gateway ended before it was ready: ${JSON.stringify(end)}\n${this.log}`);
    });
    died.catch(() => {}); // it ends one day, long after the race
    try {
      return await within('ready.json', Promise.race([written, died]), 30_000);
    } catch (error) {
      throw new Error(`${error.message}\n${this.log}`);
    } finally {
      watcher.close();
    }
  }

  get #logFile() {
    return path.join(this.dir, 'gateway.log');
  }

  /** What the gateway wrote to its standard output and error. */
  get log() {
    return readFileSync(this.#logFile, 'utf8');
  }

  get isRunning() {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get url() {
    return `http://${this.ready.http}`;
  }

  /** Where the media socket listens: `{ host, port }`. */
  get media() {
    const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(this.ready.media);
    return { host, port: Number(port) };
  }

  /** A token of this event. `role` is general, dispatch or admin. */
  async token({ user, name, role = 'general', channels = ['ops'], expires }) {
    const who = ['--user', user, '--name', name, '--role', role, '--channels', channels.join(',')];
    const until = expires ? ['--expires', expires] : [];
    const { stdout } = await run(BIN, ['token', '--state-dir', this.dir, ...who, ...until]);
    return stdout.trim();
  }

  async #api(address, options) {
    const answer = await fetch(`${this.url}${address}`, { signal: AbortSignal.timeout(5000), ...options });
    const text = await answer.text();
    assert.ok(answer.ok, `${address} answered ${answer.status}: ${text}`);
    return text ? JSON.parse(text) : null;
  }

  /** Moves an input of the simulated board. */
  async move(line, active) {
    const headers = { 'content-type': 'application/json' };
    await this.#api(`/api/sim/lines/${line}`, { method: 'POST', headers, body: JSON.stringify({ active }) });
  }

  /** True while a line of the simulated board is active. */
  async isActive(line) {
    const found = (await this.#api('/api/sim/lines')).find(({ name }) => name === line);
    assert.ok(found, `the board has no line ${line}`);
    return found.active;
  }

  /** What the gates have counted, one entry a talk burst. */
  async bursts() {
    return (await this.#api('/api/stats')).bursts;
  }

  /** Fails if a single packet of any burst left the gateway after the decision to end it. */
  async assertNothingAfterShut() {
    const bursts = await this.bursts();
    assert.ok(bursts.length > 0, 'no burst was counted');
    const late = bursts.filter(({ afterShut }) => afterShut !== 0);
    assert.deepEqual(late, [], 'packets were forwarded after their burst had ended');
  }

  /** Rows of the audit, oldest first, read with SQLite's own program; `where` is SQL. */
  async audit(where = '1') {
    const database = path.join(this.dir, 'audit.sqlite');
    const query = `SELECT * FROM audit WHERE ${where} ORDER BY seq`;
    const { stdout } = await run('sqlite3', ['-readonly', '-json', '-cmd', '.timeout 2000', database, query]);
    if (!stdout.trim()) return [];
    return JSON.parse(stdout).map((row) => ({ ...row, detail: row.detail === null ? null : JSON.parse(row.detail) }));
  }

  /** Waits until the audit has a row that `where` finds, and returns the first. The queue may hold it for a second. */
  async audited(where, options) {
    const rows = await waitFor(`the audit to have a row with ${where}`, async () => {
      const found = await this.audit(where);
      return found.length > 0 && found;
    }, options);
    return rows[0];
  }

  /** Ends the gateway as an init system does, and fails if it does not end well. */
  async stop() {
    this.#child.kill('SIGTERM');
    let end;
    try {
      end = await within('the gateway to end after SIGTERM', this.#ended);
      assert.deepEqual(end, { code: 0, signal: null }, 'the gateway did not end well');
    } catch (error) {
      this.#child.kill('SIGKILL');
      throw new Error(`${error.message}\n${this.log.slice(-4000)}`);
    }
    rmSync(this.dir, { recursive: true, force: true });
  }
}
