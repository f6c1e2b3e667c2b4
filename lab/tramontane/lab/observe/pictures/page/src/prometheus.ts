/** Ask Prometheus (through our server) and turn what it says into data frames. */
import { type DataFrame, type Field, FieldType, type Labels, type TimeRange, createDataFrame } from '@grafana/data';

import type { Target } from './model';

interface Series {
  metric: Labels;
  value?: [number, string];
  values?: Array<[number, string]>;
}

/** Call one path of the query API and return its `data`. */
export async function ask(path: string, parameters: Record<string, string>): Promise<any> {
  const response = await fetch(`/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const answer = await response.json();
  if (answer.status !== 'success') {
    throw new Error(answer.error ?? `status ${response.status}`);
  }
  return answer.data;
}

/** Prometheus writes infinity as JavaScript does not read it. */
function parsed(value: string): number {
  return Number(value.replace('Inf', 'Infinity'));
}

function named(metric: Labels, format: string | undefined): string {
  if (format && format !== '__auto') {
    return format.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => metric[label] ?? '');
  }
  const { __name__: name = '', ...labels } = metric;
  const inner = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
  return inner.length ? `${name}{${inner.join(', ')}}` : name || 'Value';
}

/** Lay the samples on the steps of the query: a step without a sample is a gap, as it is in Grafana. */
function stepped(values: Array<[number, string]>, range: TimeRange, step: number): [number[], Array<number | null>] {
  const samples = new Map(values.map(([at, value]) => [Math.round(at * 1000), parsed(value)]));
  const times: number[] = [];
  const numbers: Array<number | null> = [];
  const first = values.length ? Math.round(values[0][0] * 1000) : range.from.valueOf();
  const last = values.length ? Math.round(values[values.length - 1][0] * 1000) : first;
  for (let at = first; at <= last + step / 2; at += step) {
    times.push(at);
    numbers.push(samples.get(Math.round(at)) ?? null);
  }
  return [times, numbers];
}

function numberField(target: Target, series: Series, values: Array<number | null>): Field {
  return {
    name: 'Value',
    type: FieldType.number,
    labels: series.metric,
    config: { displayNameFromDS: named(series.metric, target.legendFormat) },
    values,
  };
}

function overTime(target: Target, result: Series[], range: TimeRange, step: number): DataFrame[] {
  return result.map((series) => {
    const [times, values] = stepped(series.values ?? [series.value!], range, step);
    return createDataFrame({
      refId: target.refId,
      name: named(series.metric, target.legendFormat),
      meta: { type: 'timeseries-multi' as never },
      fields: [
        { name: 'Time', type: FieldType.time, config: { interval: step }, values: times },
        numberField(target, series, values),
      ],
    });
  });
}

function asTable(target: Target, result: Series[], several: boolean): DataFrame {
  const labels = [...new Set(result.flatMap((series) => Object.keys(series.metric)))].sort();
  const last = (series: Series) => series.value ?? series.values![series.values!.length - 1];
  return createDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: result.map((one) => last(one)[0] * 1000) },
      ...labels.map((label) => ({
        name: label,
        type: FieldType.string,
        config: {},
        values: result.map((one) => one.metric[label] ?? ''),
      })),
      {
        name: several ? `Value #${target.refId}` : 'Value',
        type: FieldType.number,
        config: {},
        values: result.map((one) => parsed(last(one)[1])),
      },
    ],
  });
}

/** From cumulative buckets to what is in each; the frames are sorted by their upper bound. */
function buckets(frames: DataFrame[]): DataFrame[] {
  const bound = (frame: DataFrame) => parsed(frame.fields[1].labels?.le ?? '0');
  const sorted = [...frames].sort((one, other) => bound(one) - bound(other));
  const before = new Map<number, number>();
  return sorted.map((frame) => {
    const [time, field] = frame.fields;
    const values = time.values.map((at: number, index: number) => {
      const count = field.values[index] ?? 0;
      const only = Math.max(0, count - (before.get(at) ?? 0));
      before.set(at, count);
      return only;
    });
    return { ...frame, fields: [time, { ...field, values }] };
  });
}

/** Run one query as Grafana would: an instant one, or one over the range with `step` (ms). */
export async function run(
  target: Target,
  expr: string,
  range: TimeRange,
  step: number,
  several: boolean
): Promise<DataFrame[]> {
  const end = String(range.to.valueOf() / 1000);
  const whole = target.instant
    ? await ask('query', { query: expr, time: end })
    : await ask('query_range', {
        query: expr,
        start: String(Math.floor(range.from.valueOf() / step) * (step / 1000)),
        end,
        step: String(step / 1000),
      });
  const result: Series[] =
    whole.resultType === 'scalar' ? [{ metric: {}, value: whole.result }] : (whole.result as Series[]);
  if (target.format === 'table') {
    return result.length ? [asTable(target, result, several)] : [];
  }
  const frames = overTime(target, result, range, step);
  return target.format === 'heatmap' ? buckets(frames) : frames;
}
