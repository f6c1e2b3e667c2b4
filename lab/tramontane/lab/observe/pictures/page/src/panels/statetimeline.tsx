/**
 * State timeline: one row for each series, one block for each stay in a state.
 *
 * The npm libraries have no such panel, so the drawing is ours; words and colours are those that
 * Grafana's display processors give for the board's mappings and thresholds.
 */
import { type Field, formattedValueToString, getFieldDisplayName } from '@grafana/data';
import { LegendDisplayMode } from '@grafana/schema';
import { VizLayout, VizLegend, type VizLegendItem } from '@grafana/ui';

import type { PanelProps } from '../model';
import { AXIS_HEIGHT, TimeAxis, across, textWidth } from './axis';

interface Stay {
  from: number;
  to: number;
  text: string;
  color: string;
}

interface Row {
  name: string;
  stays: Stay[];
}

const PADDING_PX = 6;

/** Join samples that look alike; where none is, nothing is drawn. */
function stays(times: number[], field: Field): Stay[] {
  const step = times.length > 1 ? times[1] - times[0] : 0;
  const joined: Stay[] = [];
  let open: Stay | undefined;
  times.forEach((at, index) => {
    const value = field.values[index];
    if (value === null || value === undefined || Number.isNaN(value)) {
      open = undefined;
      return;
    }
    const shown = field.display!(value);
    const text = formattedValueToString(shown);
    if (open && open.text === text && open.color === shown.color) {
      open.to = at + step;
      return;
    }
    open = { from: at, to: at + step, text, color: shown.color ?? '#888' };
    joined.push(open);
  });
  return joined;
}

function rows({ drawn: { frames } }: PanelProps): Row[] {
  return frames.flatMap((frame) => {
    const time = frame.fields.find((field) => field.type === 'time');
    return frame.fields
      .filter((field) => time && field !== time)
      .map((field) => ({ name: getFieldDisplayName(field, frame, frames), stays: stays(time!.values, field) }));
  });
}

function legend(all: Row[]): VizLegendItem[] {
  const seen = new Map(all.flatMap((row) => row.stays).map(({ text, color }) => [text, color]));
  return [...seen].map(([label, color]) => ({ label, color, yAxis: 1 }));
}

export function StateTimelinePanel(props: PanelProps) {
  const { board, drawn, width, height } = props;
  const { theme, range, marks } = board;
  const options = drawn.panel.options ?? {};
  const all = rows(props);
  const showLegend = options.legend?.showLegend !== false;
  const labels = Math.min(Math.max(...all.map((row) => textWidth(row.name, theme))) + 12, width / 3);
  const draw = (ownWidth: number, ownHeight: number) => {
    const plot = { left: labels, width: ownWidth - labels - 8, height: ownHeight - AXIS_HEIGHT };
    const x = across(plot, range);
    const lane = plot.height / all.length;
    const thick = lane * (options.rowHeight ?? 0.9);
    return (
      <svg width={ownWidth} height={ownHeight} style={{ display: 'block' }}>
        <TimeAxis plot={plot} range={range} theme={theme} />
        {marks.map(({ time, color }) => (
          <line key={`${time}${color}`} x1={x(time)} x2={x(time)} y1={0} y2={plot.height} stroke={color} strokeDasharray="4 3" />
        ))}
        {all.map((row, index) => (
          <g key={`${index}`} transform={`translate(0 ${index * lane + (lane - thick) / 2})`} fontSize={12}>
            <text x={labels - 8} y={thick / 2} dominantBaseline="central" textAnchor="end" fill={theme.colors.text.primary}>
              {row.name}
            </text>
            {row.stays.map((stay) => (
              <Block key={stay.from} stay={stay} x={x} thick={thick} options={options} theme={theme} />
            ))}
          </g>
        ))}
      </svg>
    );
  };
  const below = showLegend ? (
    <VizLayout.Legend placement="bottom">
      <VizLegend placement="bottom" items={legend(all)} displayMode={LegendDisplayMode.List} />
    </VizLayout.Legend>
  ) : null;
  return (
    <VizLayout width={width} height={height} legend={below}>
      {draw}
    </VizLayout>
  );
}

interface BlockProps {
  stay: Stay;
  x: (time: number) => number;
  thick: number;
  options: Record<string, any>;
  theme: PanelProps['board']['theme'];
}

function Block({ stay, x, thick, options, theme }: BlockProps) {
  const [left, right] = [x(stay.from), x(stay.to)];
  const fits = textWidth(stay.text, theme) + 2 * PADDING_PX < right - left && thick > 13;
  const opacity = (options.fillOpacity ?? 70) / 100;
  return (
    <g>
      <rect x={left} width={Math.max(right - left, 1)} height={thick} fill={stay.color} fillOpacity={opacity} stroke={stay.color} />
      {options.showValue !== 'never' && fits && (
        <text x={left + PADDING_PX} y={thick / 2} dominantBaseline="central" fill={theme.colors.getContrastText(stay.color)}>
          {stay.text}
        </text>
      )}
    </g>
  );
}
