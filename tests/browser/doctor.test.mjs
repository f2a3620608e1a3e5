// The doctor's page: every check of the gateway's own look at the box, and what it says when something breaks.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { waitFor } from './wait.mjs';

let gateway;
let browser;
let page;

before(async () => {
  gateway = await Gateway.launch(['--demo']);
  browser = await Browser.launch();
  page = await browser.blank(440);
  await page.goto(`${gateway.url}/doctor`);
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** The checks on the page, as the API has them. */
const shown = () => waitFor('checks on the page', async () => {
  const checks = await page.locator('[data-check]').evaluateAll((rows) => rows.map((row) => {
    const found = [...row.querySelectorAll('p')].map((sentence) => sentence.textContent);
    return [row.dataset.check, { outcome: row.dataset.outcome, found: found.join('\n') }];
  }));
  return checks.length > 0 && Object.fromEntries(checks);
});

test('the page on the box shows every check without a token', async () => {
  const checks = await shown();
  const report = await (await fetch(`${gateway.url}/api/doctor`)).json();
  assert.deepEqual(Object.keys(checks), report.checks.map(({ name }) => name));
  assert.equal(checks.gateway.outcome, 'pass');
  assert.equal(checks.pins.outcome, 'pass');
});

test('what breaks is found when somebody looks again', async () => {
  const unplug = (present) => fetch(`${gateway.url}/api/sim/chip`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ present }),
  });
  await unplug(false);
  await waitFor('the gateway to fail its check', async () => {
    await page.click('#again');
    await page.waitForSelector('#again:enabled');
    const { gateway: check } = await shown();
    if (check.outcome !== 'fail') throw new Error(JSON.stringify(check));
    assert.match(check.found, /the simulated chip is unplugged; plug it in/);
    return true;
  });
  assert.equal(await page.evaluate(() => document.body.dataset.well), 'false');
  await unplug(true);
});
