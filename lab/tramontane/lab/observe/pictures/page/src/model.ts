/** What a board is between being read and being drawn. */
import type { DataFrame, FieldConfigSource, GrafanaTheme2, TimeRange } from '@grafana/data';

/** Scraped out of the classic JSON: only what we read. */
export interface Target {
  refId: string;
  expr: string;
  legendFormat?: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  range?: boolean;
  interval?: string;
  hide?: boolean;
}

export interface Panel {
  id: number;
  type: string;
  title?: string;
  description?: string;
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: Target[];
  options?: Record<string, any>;
  fieldConfig?: FieldConfigSource;
  transformations?: Array<{ id: string; options: any; disabled?: boolean }>;
  interval?: string;
  maxDataPoints?: number;
  collapsed?: boolean;
  panels?: Panel[];
  transparent?: boolean;
}

export interface Variable {
  name: string;
  type: string;
  label?: string;
  hide?: number;
  query?: any;
  definition?: string;
  regex?: string;
  includeAll?: boolean;
  allValue?: string | null;
  multi?: boolean;
  current?: { value?: string | string[] };
  options?: Array<{ value: string }>;
}

export interface Annotation {
  name: string;
  enable: boolean;
  expr?: string;
  iconColor?: string;
  target?: { expr?: string };
  useValueForTime?: boolean;
}

export interface BoardJson {
  title: string;
  uid: string;
  tags?: string[];
  panels: Panel[];
  templating?: { list: Variable[] };
  annotations?: { list: Annotation[] };
}

/** One moment to mark on every time series. */
export interface Mark {
  time: number;
  color: string;
}

/** What the driver learns about one panel. */
export interface PanelReport {
  title: string;
  type: string;
  state: 'data' | 'empty' | 'error' | 'still';
  message: string;
}

export interface Report {
  height: number;
  panels: PanelReport[];
}

export interface DrawnPanel {
  panel: Panel;
  frames: DataFrame[];
  report: PanelReport;
}

/** A board with its data. */
export interface Board {
  json: BoardJson;
  theme: GrafanaTheme2;
  range: TimeRange;
  panels: DrawnPanel[];
  marks: Mark[];
  legend: Array<{ name: string; color: string }>;
  /** Fill the variables into a text. */
  fill: (text: string) => string;
  chosen: Array<{ label: string; value: string }>;
}

/** What a panel is drawn from, and how large (px). */
export interface PanelProps {
  board: Board;
  drawn: DrawnPanel;
  width: number;
  height: number;
}
