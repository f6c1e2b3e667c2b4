/** What our own two panels share: a plot's place, and the times below it. */
import { type GrafanaTheme2, type TimeRange, dateTimeFormat } from '@grafana/data';

export interface Plot {
  left: number;
  width: number;
  height: number;
}

export const AXIS_HEIGHT = 22;
const TICKS_S = [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
const LEAST_PX = 90;

/** Return where a time is, in pixels from the left of the panel. */
export function across(plot: Plot, range: TimeRange): (time: number) => number {
  const [from, to] = [range.from.valueOf(), range.to.valueOf()];
  return (time) => plot.left + ((Math.min(Math.max(time, from), to) - from) / (to - from)) * plot.width;
}

export function TimeAxis({ plot, range, theme }: { plot: Plot; range: TimeRange; theme: GrafanaTheme2 }) {
  const [from, to] = [range.from.valueOf(), range.to.valueOf()];
  const apart = ((to - from) / 1000 / plot.width) * LEAST_PX;
  const step = 1000 * (TICKS_S.find((one) => one >= apart) ?? 86400);
  const format = step < 60_000 ? 'HH:mm:ss' : 'HH:mm';
  const x = across(plot, range);
  const ticks: number[] = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    ticks.push(at);
  }
  return (
    <g fontSize={12} fill={theme.colors.text.primary} textAnchor="middle">
      {ticks.map((at) => (
        <g key={at}>
          <line x1={x(at)} x2={x(at)} y1={0} y2={plot.height} stroke={theme.colors.border.weak} />
          <text x={x(at)} y={plot.height + 16}>
            {dateTimeFormat(at, { format, timeZone: 'utc' })}
          </text>
        </g>
      ))}
    </g>
  );
}

/** Measure a text as the browser will draw it. */
export function textWidth(text: string, theme: GrafanaTheme2, size = 12): number {
  const context = document.createElement('canvas').getContext('2d')!;
  context.font = `${size}px ${theme.typography.fontFamily}`;
  return context.measureText(text).width;
}
