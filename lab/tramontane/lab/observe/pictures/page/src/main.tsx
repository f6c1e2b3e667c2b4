/**
 * Draw one board, whole, and say when it stands still.
 *
 * The address tells what to draw: `/?board=fleet&from=MS&to=MS&var-pool=h100`. `window.pictures`
 * is a promise of the report that the driver waits for: each panel, and whether it has data.
 */
import '@fontsource-variable/inter';
import { createTheme, standardTransformers, standardTransformersRegistry, ThemeContext } from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { GlobalStyles, PortalContainer } from '@grafana/ui';
import { createRoot } from 'react-dom/client';
import 'uplot/dist/uPlot.min.css';

import { BoardView } from './board';
import { load } from './load';
import type { Report } from './model';

declare global {
  interface Window {
    pictures: Promise<Report>;
  }
}

const theme = createTheme({
  colors: { mode: 'dark' },
  typography: { fontFamily: '"Inter Variable", "Helvetica", "Arial", sans-serif' },
});

// Some go by two names.
const transformers = new Map(Object.values(standardTransformers).map((one) => [one.id, one]));
standardTransformersRegistry.setInit(() =>
  [...transformers.values()].map((one) => ({
    id: one.id,
    name: one.name,
    transformation: () => Promise.resolve(one as never),
    editor: () => null,
    imageDark: '',
    imageLight: '',
  }))
);

/** Wait until the fonts are there and nothing in the page has changed for a while. */
async function still(): Promise<void> {
  await document.fonts.ready;
  await new Promise<void>((resolve) => {
    let timer = window.setTimeout(resolve, 700);
    new MutationObserver(() => {
      window.clearTimeout(timer);
      timer = window.setTimeout(resolve, 700);
    }).observe(document.body, { subtree: true, childList: true, attributes: true });
  });
}

async function draw(): Promise<Report> {
  await initPluginTranslations('tramontane');
  const board = await load(new URLSearchParams(window.location.search), theme);
  const root = createRoot(document.getElementById('board')!);
  root.render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <BoardView board={board} />
      <PortalContainer />
    </ThemeContext.Provider>
  );
  await still();
  const height = Math.ceil(document.getElementById('board')!.getBoundingClientRect().height);
  return { height, panels: board.panels.map((panel) => panel.report) };
}

window.pictures = draw();
