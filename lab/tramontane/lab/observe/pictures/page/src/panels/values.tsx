/** Stat and bar gauge: one value of each series, by Grafana's own components. */
import {
  type DisplayValueAlignmentFactors,
  type FieldDisplay,
  VizOrientation,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
} from '@grafana/data';
import { BarGaugeDisplayMode, BarGaugeNamePlacement, BarGaugeValueMode } from '@grafana/schema';
import {
  BarGauge,
  BigValue,
  BigValueColorMode,
  BigValueGraphMode,
  BigValueJustifyMode,
  BigValueTextMode,
  VizRepeater,
} from '@grafana/ui';

import type { PanelProps } from '../model';

function values({ board, drawn }: PanelProps, sparkline: boolean): FieldDisplay[] {
  const { options, fieldConfig } = drawn.panel;
  return getFieldDisplayValues({
    data: drawn.frames,
    reduceOptions: { calcs: ['lastNotNull'], values: false, fields: '', ...options?.reduceOptions },
    fieldConfig: fieldConfig ?? { defaults: {}, overrides: [] },
    replaceVariables: (text) => text,
    sparkline,
    theme: board.theme,
    timeZone: 'utc',
  });
}

function orientation(chosen: unknown): VizOrientation {
  return chosen === 'horizontal' || chosen === 'vertical' ? (chosen as VizOrientation) : VizOrientation.Auto;
}

export function StatPanel(props: PanelProps) {
  const { board, drawn, width, height } = props;
  const options = drawn.panel.options ?? {};
  const graph = options.graphMode ?? BigValueGraphMode.Area;
  return (
    <VizRepeater<FieldDisplay, DisplayValueAlignmentFactors>
      getValues={() => values(props, graph !== BigValueGraphMode.None)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, alignmentFactors, width: ownWidth, height: ownHeight, count }) => (
        <BigValue
          value={value.display}
          count={count}
          sparkline={graph === BigValueGraphMode.None ? undefined : withRange(value, board)}
          colorMode={options.colorMode ?? BigValueColorMode.Value}
          graphMode={graph}
          justifyMode={options.justifyMode ?? BigValueJustifyMode.Auto}
          textMode={options.textMode ?? BigValueTextMode.Auto}
          disableWideLayout={options.wideLayout === false}
          alignmentFactors={alignmentFactors}
          text={options.text}
          width={ownWidth}
          height={ownHeight}
          theme={board.theme}
        />
      )}
      width={width}
      height={height}
      source={drawn.frames}
      renderCounter={0}
      autoGrid
      orientation={orientation(options.orientation)}
    />
  );
}

function withRange(value: FieldDisplay, board: PanelProps['board']): FieldDisplay['sparkline'] {
  return value.sparkline && { ...value.sparkline, timeRange: board.range };
}

export function BarGaugePanel(props: PanelProps) {
  const { board, drawn, width, height } = props;
  const options = drawn.panel.options ?? {};
  return (
    <VizRepeater<FieldDisplay, DisplayValueAlignmentFactors>
      getValues={() => values(props, false)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, alignmentFactors, width: ownWidth, height: ownHeight, orientation: own }) => (
        <BarGauge
          value={value.display}
          field={value.field}
          display={value.view?.getFieldDisplayProcessor(value.colIndex!)}
          alignmentFactors={alignmentFactors}
          displayMode={options.displayMode ?? BarGaugeDisplayMode.Gradient}
          valueDisplayMode={options.valueMode ?? BarGaugeValueMode.Color}
          namePlacement={options.namePlacement ?? BarGaugeNamePlacement.Auto}
          showUnfilled={options.showUnfilled ?? true}
          text={options.text}
          orientation={own}
          width={ownWidth}
          height={ownHeight}
          theme={board.theme}
        />
      )}
      width={width}
      height={height}
      minVizHeight={options.minVizHeight ?? 16}
      maxVizHeight={options.maxVizHeight ?? 300}
      minVizWidth={options.minVizWidth ?? 8}
      itemSpacing={10}
      source={drawn.frames}
      renderCounter={0}
      orientation={orientation(options.orientation)}
    />
  );
}
