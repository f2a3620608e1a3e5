// Another machine, as far as the gateway can tell: a network namespace that a cable connects to this one.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Browser, CHROMIUM } from './page.mjs';

const run = (program, ...args) => execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

/** A home directory whose browsers trust these authorities besides those they came with; `authorities` are files. */
export function homeThatTrusts(authorities) {
  const home = mkdtempSync(path.join(tmpdir(), 'crosspatch-home-'));
  process.once('exit', () => rmSync(home, { recursive: true, force: true }));
  const database = path.join(home, '.pki', 'nssdb');
  mkdirSync(database, { recursive: true });
  run('certutil', '-N', '-d', `sql:${database}`, '--empty-password');
  for (const [index, file] of authorities.entries()) {
    run('certutil', '-A', '-d', `sql:${database}`, '-n', `box ${index}`, '-t', 'C,,', '-i', file);
  }
  return home;
}

export class Elsewhere {
  #name = `cp-${process.pid}`;
  #near = `cpn${process.pid}`;
  // Of the range that is set aside for tests of networks (RFC 2544).
  #net = `198.18.${process.pid % 256}`;

  /** The addresses of this machine on the cable: the one that it prefers, and another. */
  get addresses() {
    return [`${this.#net}.1`, `${this.#net}.3`];
  }

  /** Lays the cable; throws where that is not permitted. */
  static open() {
    const there = new Elsewhere();
    const far = `cpf${process.pid}`;
    process.once('exit', () => there.close());
    try {
      run('ip', 'netns', 'add', there.#name);
      run('ip', 'link', 'add', there.#near, 'type', 'veth', 'peer', 'name', far, 'netns', there.#name);
      for (const address of there.addresses) there.add(address);
      run('ip', 'link', 'set', there.#near, 'up');
      run('ip', '-n', there.#name, 'address', 'add', `${there.#net}.2/24`, 'dev', far);
      run('ip', '-n', there.#name, 'link', 'set', far, 'up');
      run('ip', '-n', there.#name, 'link', 'set', 'lo', 'up');
    } catch (error) {
      there.close();
      throw error;
    }
    return there;
  }

  /** Gives this machine one more address on the cable; returns it. */
  add(address = `${this.#net}.4`) {
    run('ip', 'address', 'add', `${address}/24`, 'dev', this.#near);
    return address;
  }

  /** A browser there, which trusts these authorities besides those it came with; `authorities` are files. */
  async browser(authorities) {
    const home = homeThatTrusts(authorities);
    const program = path.join(home, 'chromium');
    writeFileSync(program, `#!/bin/sh\nexec ip netns exec ${this.#name} '${CHROMIUM}' "$@"\n`);
    chmodSync(program, 0o755);
    // Playwright speaks to it through a pipe, which needs no network.
    return Browser.launch({ executablePath: program, env: { ...process.env, HOME: home } });
  }

  close() {
    try {
      run('ip', 'netns', 'delete', this.#name); // with it both ends of the cable
    } catch {
      // it was never there
    }
  }
}
