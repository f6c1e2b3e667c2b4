/**
 * From raw frames to what a panel draws: transformations, overrides, units, colours.
 *
 * All of it is Grafana's own code. Its panels declare which options a field may have; we take
 * every option that the board sets, so the registry below knows any.
 */
import {
  type DataFrame,
  type DataTransformContext,
  type FieldConfigSource,
  type GrafanaTheme2,
  applyFieldOverrides,
  transformDataFrame,
} from '@grafana/data';
import { lastValueFrom } from 'rxjs';

import type { Panel } from './model';

const CUSTOM = 'custom.';

function option(id: string): any {
  const isCustom = id.startsWith(CUSTOM);
  return {
    id,
    name: id,
    path: isCustom ? id.slice(CUSTOM.length) : id,
    isCustom,
    settings: {},
    process: (value: unknown) => value,
    shouldApply: () => true,
  };
}

function registry(config: FieldConfigSource): any {
  const { custom = {}, ...own } = config.defaults as Record<string, any>;
  const known = [...Object.keys(own), ...Object.keys(custom).map((key) => CUSTOM + key)].map(option);
  return { list: () => known, getIfExists: option };
}

/** A threshold's base step has no value in JSON, since JSON has no minus infinity. */
function based(config: FieldConfigSource): FieldConfigSource {
  return JSON.parse(JSON.stringify(config), (key, value) =>
    key === 'steps' && Array.isArray(value)
      ? value.map((step) => ({ ...step, value: step.value ?? -Infinity }))
      : value
  );
}

export async function prepare(
  panel: Panel,
  raw: DataFrame[],
  theme: GrafanaTheme2,
  interpolate: (text: string) => string
): Promise<DataFrame[]> {
  const steps = (panel.transformations ?? []).filter((one) => !one.disabled);
  const context: DataTransformContext = { interpolate };
  const frames = steps.length ? await lastValueFrom(transformDataFrame(steps, raw, context)) : raw;
  const fieldConfig = based(panel.fieldConfig ?? { defaults: {}, overrides: [] });
  return applyFieldOverrides({
    data: frames,
    fieldConfig,
    fieldConfigRegistry: registry(fieldConfig),
    replaceVariables: (text) => interpolate(text),
    theme,
    timeZone: 'utc',
  });
}
