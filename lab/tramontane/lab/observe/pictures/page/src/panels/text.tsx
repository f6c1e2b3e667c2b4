/** Text panels: Grafana's own Markdown, cleaned as Grafana cleans it. */
import { renderTextPanelMarkdown } from '@grafana/data';

import type { PanelProps } from '../model';

export function TextPanel({ board, drawn, width, height }: PanelProps) {
  const { content: written = '', mode = 'markdown' } = drawn.panel.options ?? {};
  const content = board.fill(written);
  const html = mode === 'html' ? content : renderTextPanelMarkdown(content);
  return (
    <div className="markdown-html" style={{ width, height, overflow: 'hidden' }}>
      <div dangerouslySetInnerHTML={{ __html: html }} />
    </div>
  );
}
