/** Read a board, choose its variables, ask all its queries, prepare all its data. */
import { type DataFrame, type GrafanaTheme2, type TimeRange, dateTime, rangeUtil } from '@grafana/data';

import { prepare } from './fields';
import type { Annotation, Board, BoardJson, DrawnPanel, Mark, Panel } from './model';
import { ask, run } from './prometheus';
import { type Chosen, choose, fill } from './variables';

export const WIDTH = 1600;
const COLUMNS = 24;

interface Settings {
  scrape_s: number;
}

function seconds(written: string | undefined): number | undefined {
  return written ? rangeUtil.intervalToSeconds(written.replace('>', '')) : undefined;
}

/** Return the step (ms) and the times that a query may name, by Grafana's rules. */
function timing(panel: Panel, range: TimeRange, scrape: number, wanted?: string): [number, Record<string, string>] {
  const length = (range.to.valueOf() - range.from.valueOf()) / 1000;
  const points = panel.maxDataPoints ?? Math.round((panel.gridPos.w / COLUMNS) * WIDTH);
  const least = seconds(wanted) ?? seconds(panel.interval) ?? scrape;
  const step = Math.max(rangeUtil.roundInterval((length / points) * 1000) / 1000, least);
  const rate = Math.max(step + scrape, 4 * scrape);
  const times = {
    __interval: `${Math.round(step * 1000)}ms`,
    __interval_ms: String(Math.round(step * 1000)),
    __rate_interval: `${Math.round(rate * 1000)}ms`,
    __range: `${Math.round(length)}s`,
    __range_s: String(Math.round(length)),
  };
  return [Math.round(step * 1000), times];
}

async function drawn(
  panel: Panel,
  chosen: Chosen,
  range: TimeRange,
  scrape: number,
  theme: GrafanaTheme2
): Promise<DrawnPanel> {
  const report = { title: fill(panel.title ?? '', chosen), type: panel.type, message: '' };
  const targets = (panel.targets ?? []).filter((target) => !target.hide);
  if (panel.type === 'row' || panel.type === 'text') {
    return { panel, frames: [], report: { ...report, state: 'still' } };
  }
  try {
    const raw: DataFrame[] = [];
    for (const target of targets) {
      const [step, times] = timing(panel, range, scrape, target.interval);
      raw.push(...(await run(target, fill(target.expr, chosen, times), range, step, targets.length > 1)));
    }
    const frames = await prepare(panel, raw, theme, (text) => fill(text, chosen));
    const any = frames.some((frame) => frame.fields.some((field) => field.type !== 'time' && visible(field.values)));
    return { panel, frames, report: { ...report, state: any ? 'data' : 'empty' } };
  } catch (error) {
    return { panel, frames: [], report: { ...report, state: 'error', message: String(error) } };
  }
}

/** Tell whether there is something to see; NaN and infinity are not. */
function visible(values: unknown[]): boolean {
  return values.some((value) => typeof value === 'string' || Number.isFinite(value));
}

async function marks(
  annotation: Annotation,
  chosen: Chosen,
  range: TimeRange,
  scrape: number,
  color: string
): Promise<Mark[]> {
  const step = Math.max((range.to.valueOf() - range.from.valueOf()) / 1000 / 400, scrape);
  const expr = fill(annotation.expr ?? annotation.target?.expr ?? '', chosen, {
    __interval: `${Math.round(step * 1000)}ms`,
    __rate_interval: `${Math.round(4000 * scrape)}ms`,
  });
  const { result } = await ask('query_range', {
    query: expr,
    start: String(range.from.valueOf() / 1000),
    end: String(range.to.valueOf() / 1000),
    step: String(step),
  });
  const samples = (result as Array<{ values: Array<[number, string]> }>).map((series) =>
    series.values.map(([at, value]) => [at * 1000, Number(value)])
  );
  const times = annotation.useValueForTime
    ? samples.flat().map(([, value]) => value)
    : samples.flatMap((series) => beginnings(series, step * 1000));
  const within = [...new Set(times)].filter((time) => time >= range.from.valueOf() && time <= range.to.valueOf());
  return within.map((time) => ({ time, color }));
}

/** Return where something begins: the samples that follow at each step tell of the same thing. */
function beginnings(samples: number[][], step: number): number[] {
  const there = samples.filter(([, value]) => value !== 0 && !Number.isNaN(value)).map(([at]) => at);
  return there.filter((at, index) => index === 0 || at - there[index - 1] > 1.5 * step);
}

/** A row that is folded up shows nothing; the panels of one that is not stand beside it. */
export async function load(address: URLSearchParams, theme: GrafanaTheme2): Promise<Board> {
  const settings: Settings = await (await fetch('/settings.json')).json();
  const json: BoardJson = await (await fetch(`/boards/${address.get('board')}.json`)).json();
  const from = dateTime(Number(address.get('from'))).utc();
  const to = dateTime(Number(address.get('to'))).utc();
  const range: TimeRange = { from, to, raw: { from, to } };
  const variables = json.templating?.list ?? [];
  const chosen = await choose(variables, address, range);
  const panels: DrawnPanel[] = [];
  for (const panel of json.panels) {
    panels.push(await drawn(panel, chosen, range, settings.scrape_s, theme));
  }
  const events = (json.annotations?.list ?? []).filter(
    (one) => one.enable && (one.expr || one.target?.expr)
  );
  const colored = events.map((one) => ({
    ...one,
    color: theme.visualization.getColorByName(one.iconColor ?? 'red'),
  }));
  const found = await Promise.all(
    colored.map((one) => marks(one, chosen, range, settings.scrape_s, one.color).catch(() => []))
  );
  return {
    json,
    theme,
    range,
    panels,
    marks: found.flat(),
    legend: colored.map(({ name, color }) => ({ name, color })),
    fill: (text) => fill(text, chosen),
    chosen: variables
      .filter((one) => one.type !== 'datasource' && one.hide !== 2)
      .map((one) => ({
        label: one.label ?? one.name,
        value: (chosen.get(one.name) ?? []).join(' + ').replace(/^\.[*+]$/, 'All'),
      })),
  };
}
