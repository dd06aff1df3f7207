/**
 * Renders Markdown to HTML. The event has `markdown`; the answer has `html` and the headings found on the way.
 * An event without text fails the invocation, as a thrown error does on Lambda.
 */
import { Marked } from "marked";

export const handler = async (event) => {
  if (typeof event.markdown !== "string") {
    throw new TypeError("the event needs a string named markdown");
  }
  const headings = [];
  const marked = new Marked({
    gfm: true,
    walkTokens: (token) => {
      if (token.type === "heading") headings.push({ depth: token.depth, text: token.text });
    },
  });
  const html = await marked.parse(event.markdown);
  console.log(`${event.markdown.length} characters, ${headings.length} headings`);
  return { html, headings };
};
