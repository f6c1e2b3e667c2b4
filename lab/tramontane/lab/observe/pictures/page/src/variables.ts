/**
 * The board's variables: what can be chosen, what is chosen, and how a text looks with it.
 *
 * As Grafana's data source for Prometheus does it: a choice of several becomes a regular
 * expression, "All" becomes `allValue` or all there is.
 */
import type { TimeRange } from '@grafana/data';

import { ask } from './prometheus';
import type { Variable } from './model';

export type Chosen = Map<string, string[]>;

const ALL = '$__all';

function escaped(value: string): string {
  return value.replace(/[\\^$*+?.()|[\]{}]/g, '\\\\$&');
}

/** Return `text` with the variables of the board, and those of `more`, filled in. */
export function fill(text: string, chosen: Chosen, more: Record<string, string> = {}): string {
  return text.replace(/\$(\w+)|\$\{(\w+)(?::(\w+))?\}/g, (whole, bare, braced, how) => {
    const name = bare ?? braced;
    if (name in more) {
      return more[name];
    }
    const values = chosen.get(name);
    if (!values) {
      return whole;
    }
    if (how === 'raw' || how === 'text' || (values.length === 1 && how !== 'regex')) {
      return values.join(', ');
    }
    const safe = values.map(escaped);
    return safe.length === 1 ? safe[0] : `(${safe.join('|')})`;
  });
}

async function offered(variable: Variable, chosen: Chosen, range: TimeRange): Promise<string[]> {
  if (variable.type === 'custom' || variable.type === 'interval') {
    return String(variable.query).split(',').map((word) => word.trim());
  }
  if (variable.type !== 'query') {
    return [String(variable.query ?? '')];
  }
  const written = typeof variable.query === 'string' ? variable.query : (variable.query?.query ?? variable.definition);
  const query = fill(String(written), chosen);
  const found = /^label_values\((?:(.*),)?\s*(\w+)\s*\)$/s.exec(query.trim());
  if (!found) {
    throw new Error(`variable ${variable.name}: must ask label_values(…) (got ${query})`);
  }
  const [, matcher, label] = found;
  const times = { start: String(range.from.valueOf() / 1000), end: String(range.to.valueOf() / 1000) };
  const values: string[] = await ask(`label/${label}/values`, {
    ...times,
    ...(matcher ? { 'match[]': matcher.trim() } : {}),
  });
  const wanted = variable.regex ? new RegExp(variable.regex.replace(/^\/|\/$/g, '')) : null;
  return wanted ? values.filter((value) => wanted.test(value)) : values;
}

/** Choose a value of each variable, in order: the address's, the board's own, else the first. */
export async function choose(variables: Variable[], address: URLSearchParams, range: TimeRange): Promise<Chosen> {
  const chosen: Chosen = new Map();
  for (const variable of variables) {
    if (variable.type === 'datasource' || variable.type === 'adhoc') {
      chosen.set(variable.name, ['prometheus']);
      continue;
    }
    const wanted = address.getAll(`var-${variable.name}`);
    const own = [variable.current?.value ?? []].flat().filter((value) => value !== '');
    const values = wanted.length ? wanted : own;
    if (values.includes(ALL) || (!values.length && variable.includeAll)) {
      const all = variable.allValue ? [variable.allValue] : await offered(variable, chosen, range);
      chosen.set(variable.name, all.length ? all : ['.*']);
      continue;
    }
    const open = await offered(variable, chosen, range);
    const kept = values.filter((value) => wanted.length || open.includes(value));
    chosen.set(variable.name, kept.length ? kept : open.slice(0, 1));
  }
  return chosen;
}
