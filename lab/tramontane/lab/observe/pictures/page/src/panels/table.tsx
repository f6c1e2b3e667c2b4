/** Tables: Grafana's own component, of the first frame (the board's transformations make it one). */
import { cacheFieldDisplayNames } from '@grafana/data';
import { TableNG } from '@grafana/ui/unstable';

import type { PanelProps } from '../model';

export function TablePanel({ board, drawn, width, height }: PanelProps) {
  const { options, fieldConfig } = drawn.panel;
  const [frame] = drawn.frames;
  cacheFieldDisplayNames([frame]); // the component takes its headings from there
  const shown = { ...frame, fields: frame.fields.filter((field) => !field.config.custom?.hidden) };
  return (
    <TableNG
      data={shown}
      width={width}
      height={height}
      timeRange={board.range}
      sortBy={options?.sortBy}
      cellHeight={options?.cellHeight}
      noHeader={options?.showHeader === false}
      fieldConfig={fieldConfig}
    />
  );
}
