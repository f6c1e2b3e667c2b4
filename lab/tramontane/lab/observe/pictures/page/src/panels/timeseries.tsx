/** Time series: Grafana's own component, with the board's marks drawn over it. */
import { type DataFrame } from '@grafana/data';
import { LegendDisplayMode } from '@grafana/schema';
import { TimeSeries, type UPlotConfigBuilder } from '@grafana/ui';
import type uPlot from 'uplot';

import type { Mark, PanelProps } from '../model';

const marked = new WeakSet<UPlotConfigBuilder>();

/** Draw each mark as a dashed line with a foot, as Grafana shows annotations. */
function addMarks(builder: UPlotConfigBuilder, marks: Mark[]): void {
  if (marked.has(builder)) {
    return;
  }
  marked.add(builder);
  builder.addHook('draw', (plot: uPlot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.lineWidth = 1;
    ctx.globalAlpha = 0.7;
    for (const { time, color } of marks) {
      const x = Math.round(plot.valToPos(time, 'x', true)) + 0.5;
      ctx.strokeStyle = ctx.fillStyle = color;
      ctx.setLineDash([4, 3]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      ctx.moveTo(x, bbox.top + bbox.height);
      ctx.lineTo(x - 4, bbox.top + bbox.height + 6);
      ctx.lineTo(x + 4, bbox.top + bbox.height + 6);
      ctx.fill();
    }
    ctx.restore();
  });
}

/** Leave out what no line can show: frames without samples, and NaN and infinity, which break the scale. */
function plottable(frames: DataFrame[]): DataFrame[] {
  const finite = (value: unknown) => (typeof value === 'number' && !Number.isFinite(value) ? null : value);
  return frames
    .filter((frame) => frame.length > 0)
    .map((frame) => ({
      ...frame,
      fields: frame.fields.map((field) => ({ ...field, values: field.values.map(finite) })),
    }));
}

export function TimeSeriesPanel({ board, drawn, width, height }: PanelProps) {
  const legend = {
    displayMode: LegendDisplayMode.List,
    placement: 'bottom',
    showLegend: true,
    calcs: [],
    ...drawn.panel.options?.legend,
  };
  return (
    <TimeSeries
      frames={plottable(drawn.frames)}
      width={width}
      height={height}
      timeRange={board.range}
      timeZone="utc"
      legend={legend}
      options={drawn.panel.options}
    >
      {(builder) => {
        addMarks(builder, board.marks);
        return null;
      }}
    </TimeSeries>
  );
}
