// Bundles the pages into dist/, which the gateway serves.
import { build } from 'esbuild';
import { copyFile, mkdir, rm } from 'node:fs/promises';

await rm('dist', { recursive: true, force: true });
await mkdir('dist');
await build({
  entryPoints: ['src/talk.js', 'src/panel.js', 'src/timeline.js', 'src/doctor.js'],
  outdir: 'dist',
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2020',
  legalComments: 'none',
  logLevel: 'info',
});
for (const name of ['index.html', 'talk.html', 'trust.html', 'timeline.html', 'doctor.html', 'style.css', 'timeline.css', 'doctor.css']) {
  await copyFile(`src/${name}`, `dist/${name}`);
}
