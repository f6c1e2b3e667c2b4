/** Lay a board's panels on Grafana's grid: 24 columns, cells of 30 px, 8 px between them. */
import { css } from '@emotion/css';
import { dateTimeFormat } from '@grafana/data';
import { Icon, PanelChrome, useStyles2 } from '@grafana/ui';
import type { GrafanaTheme2 } from '@grafana/data';
import { Component, type ReactNode } from 'react';

import { WIDTH } from './load';
import type { Board, DrawnPanel, PanelProps } from './model';
import { BarGaugePanel, StatPanel } from './panels/values';
import { HeatmapPanel } from './panels/heatmap';
import { StateTimelinePanel } from './panels/statetimeline';
import { TablePanel } from './panels/table';
import { TextPanel } from './panels/text';
import { TimeSeriesPanel } from './panels/timeseries';

const CELL = 30;
const GAP = 8;
const MARGIN = 16;
const COLUMN = (WIDTH - 2 * MARGIN + GAP) / 24;

const PANELS: Record<string, (props: PanelProps) => ReactNode> = {
  text: TextPanel,
  timeseries: TimeSeriesPanel,
  stat: StatPanel,
  bargauge: BarGaugePanel,
  table: TablePanel,
  'state-timeline': StateTimelinePanel,
  heatmap: HeatmapPanel,
};

/** A panel that cannot be drawn says so, in the picture and in the report. */
class Guard extends Component<{ drawn: DrawnPanel; children: ReactNode }, { message: string }> {
  state = { message: '' };

  static getDerivedStateFromError(error: Error) {
    return { message: String(error) };
  }

  componentDidCatch(error: Error) {
    Object.assign(this.props.drawn.report, { state: 'error', message: String(error.stack ?? error) });
  }

  render() {
    return this.state.message || this.props.children;
  }
}

function PanelView({ board, drawn }: { board: Board; drawn: DrawnPanel }) {
  const styles = useStyles2(getStyles);
  const { panel, report } = drawn;
  const { x, y, w, h } = panel.gridPos;
  const width = w * COLUMN - GAP;
  const height = h * CELL + (h - 1) * GAP;
  const place = { left: MARGIN + x * COLUMN, top: y * (CELL + GAP), width, height };
  if (panel.type === 'row') {
    return (
      <div className={styles.row} style={place}>
        <Icon name={panel.collapsed ? 'angle-right' : 'angle-down'} /> {report.title}
        {panel.collapsed && <span className={styles.faint}>({panel.panels?.length ?? 0} panels)</span>}
      </div>
    );
  }
  const Draw = PANELS[panel.type];
  if (!Draw) {
    Object.assign(report, { state: 'error', message: `no code of ours draws a panel of type ${panel.type}` });
  }
  const message = report.state === 'error' ? report.message : report.state === 'empty' ? 'No data' : '';
  return (
    <div className={styles.panel} style={place}>
      <PanelChrome
        title={report.title}
        description={panel.description}
        width={width}
        height={height}
        hoverHeader={!report.title}
        padding={panel.type === 'table' ? 'none' : 'md'}
        displayMode={panel.transparent ? 'transparent' : 'default'}
      >
        {(innerWidth, innerHeight) =>
          message ? (
            <div className={styles.empty}>{panel.fieldConfig?.defaults.noValue ?? message}</div>
          ) : (
            <Guard drawn={drawn}>
              <Draw board={board} drawn={drawn} width={innerWidth} height={innerHeight} />
            </Guard>
          )
        }
      </PanelChrome>
    </div>
  );
}

export function BoardView({ board }: { board: Board }) {
  const styles = useStyles2(getStyles);
  const bottom = Math.max(...board.json.panels.map(({ gridPos: { y, h } }) => y + h));
  const at = (time: any) => dateTimeFormat(time, { format: 'YYYY-MM-DD HH:mm:ss', timeZone: 'utc' });
  return (
    <div className={styles.board}>
      <div className={styles.bar}>
        <span className={styles.title}>{board.json.title}</span>
        {board.chosen.map(({ label, value }) => (
          <span key={label} className={styles.chosen}>
            <span>{label}</span>
            <b>{value || 'All'}</b>
          </span>
        ))}
        {board.legend.map(({ name, color }) => (
          <span key={name} className={styles.mark}>
            <i style={{ borderColor: color }} /> {name}
          </span>
        ))}
        <span className={styles.time}>
          <Icon name="clock-nine" /> {at(board.range.from)} to {at(board.range.to)} UTC
        </span>
      </div>
      <div className={styles.grid} style={{ height: bottom * (CELL + GAP) + GAP }}>
        {board.panels.map((drawn) => (
          <PanelView key={`${drawn.panel.id}`} board={board} drawn={drawn} />
        ))}
      </div>
    </div>
  );
}

const getStyles = (theme: GrafanaTheme2) => ({
  board: css({ width: WIDTH, background: theme.colors.background.canvas, overflow: 'hidden' }),
  grid: css({ position: 'relative' }),
  panel: css({ position: 'absolute' }),
  row: css({
    position: 'absolute',
    display: 'flex',
    alignItems: 'center',
    gap: theme.spacing(1),
    fontSize: theme.typography.h5.fontSize,
    fontWeight: theme.typography.fontWeightMedium,
  }),
  faint: css({ color: theme.colors.text.secondary, fontSize: theme.typography.bodySmall.fontSize }),
  empty: css({
    height: '100%',
    display: 'flex',
    alignItems: 'center',
    justifyContent: 'center',
    color: theme.colors.text.secondary,
  }),
  bar: css({
    display: 'flex',
    alignItems: 'center',
    gap: theme.spacing(2),
    padding: theme.spacing(1.5, 2),
    whiteSpace: 'nowrap',
  }),
  title: css({ fontSize: theme.typography.h4.fontSize, fontWeight: theme.typography.fontWeightMedium }),
  chosen: css({
    display: 'flex',
    border: `1px solid ${theme.colors.border.weak}`,
    borderRadius: theme.shape.radius.default,
    overflow: 'hidden',
    '& > *': { padding: theme.spacing(0.5, 1), fontSize: theme.typography.bodySmall.fontSize },
    '& > b': { background: theme.colors.background.primary, maxWidth: 260, overflow: 'hidden', textOverflow: 'ellipsis' },
  }),
  mark: css({
    display: 'flex',
    alignItems: 'center',
    gap: theme.spacing(0.5),
    color: theme.colors.text.secondary,
    fontSize: theme.typography.bodySmall.fontSize,
    '& > i': { height: 14, borderLeft: '2px dashed' },
  }),
  time: css({
    marginLeft: 'auto',
    color: theme.colors.text.secondary,
    fontSize: theme.typography.bodySmall.fontSize,
  }),
});
