/**
 * Heat map of a histogram: time to the right, buckets upwards, colour for how many.
 *
 * The npm libraries have no such panel, so the drawing is ours; the colour schemes are the ones
 * that Grafana's panel takes its own from.
 */
import { type DataFrame, formattedValueToString, getFieldDisplayName, getValueFormat } from '@grafana/data';
import * as schemes from 'd3-scale-chromatic';

import type { PanelProps } from '../model';
import { AXIS_HEIGHT, TimeAxis, across, textWidth } from './axis';

type Scheme = (at: number) => string;

const SCALE_HEIGHT = 24;
const SCALE_WIDTH = 240;

function colours(options: Record<string, any>): Scheme {
  const name = options.color?.scheme ?? 'Oranges';
  const scheme = (schemes as unknown as Record<string, Scheme>)[`interpolate${name}`] ?? schemes.interpolateOranges;
  // Light schemes are turned round on a dark page, so that little stays near the background.
  return (at) => scheme(options.color?.reverse ? at : 1 - at);
}

/** Name a bucket by its upper bound, in the unit of the axis. */
function bound(frame: DataFrame, unit: string, frames: DataFrame[]): string {
  const field = frame.fields[1];
  const le = Number((field.labels?.le ?? '').replace('+Inf', 'Infinity'));
  if (field.labels?.le === undefined) {
    return getFieldDisplayName(field, frame, frames);
  }
  return Number.isFinite(le) ? formattedValueToString(getValueFormat(unit)(le)) : '+Inf';
}

export function HeatmapPanel({ board, drawn, width, height }: PanelProps) {
  const { theme, range, marks } = board;
  const { frames } = drawn;
  const options = drawn.panel.options ?? {};
  const colour = colours(options);
  const most = Math.max(...frames.flatMap((frame) => frame.fields[1].values as number[]), 1e-9);
  const names = frames.map((frame) => bound(frame, options.yAxis?.unit ?? 'short', frames));
  const labels = Math.max(...names.map((name) => textWidth(name, theme))) + 12;
  const plot = { left: labels, width: width - labels - 8, height: height - AXIS_HEIGHT - SCALE_HEIGHT };
  const lane = plot.height / frames.length;
  const x = across(plot, range);
  const every = Math.ceil(14 / lane);
  const exponent = options.color?.exponent ?? 0.5;
  const format = getValueFormat(options.cellValues?.unit ?? 'short');
  return (
    <svg width={width} height={height} style={{ display: 'block' }} fontSize={12}>
      <TimeAxis plot={plot} range={range} theme={theme} />
      {frames.map((frame, index) => {
        const [time, field] = frame.fields;
        const top = plot.height - (index + 1) * lane;
        const step = time.config.interval ?? 0;
        return (
          <g key={names[index]}>
            {index % every === 0 && (
              <text x={labels - 8} y={top + lane / 2} dominantBaseline="central" textAnchor="end" fill={theme.colors.text.primary}>
                {names[index]}
              </text>
            )}
            {(field.values as number[]).map((count, sample) =>
              count > 0 ? (
                <rect
                  key={sample}
                  x={x(time.values[sample] - step)}
                  y={top}
                  width={Math.max(x(time.values[sample]) - x(time.values[sample] - step) - 0.5, 0.5)}
                  height={Math.max(lane - 1, 1)}
                  fill={colour((count / most) ** exponent)}
                />
              ) : null
            )}
          </g>
        );
      })}
      {marks.map(({ time, color }) => (
        <line key={`${time}${color}`} x1={x(time)} x2={x(time)} y1={0} y2={plot.height} stroke={color} strokeDasharray="4 3" />
      ))}
      <g transform={`translate(${labels} ${plot.height + AXIS_HEIGHT + 6})`} fill={theme.colors.text.secondary}>
        {Array.from({ length: 48 }, (_, part) => (
          <rect key={part} x={(part * SCALE_WIDTH) / 48} width={SCALE_WIDTH / 48 + 0.5} height={8} fill={colour((part + 0.5) / 48)} />
        ))}
        <text x={SCALE_WIDTH + 8} y={8}>
          up to {formattedValueToString(format(most))}
        </text>
      </g>
    </svg>
  );
}
