//! Markdown as a tree of elements. Pure. Not as HTML: whoever shows it makes each element by itself, so that nothing which somebody wrote is ever read as
//! markup of a page (R46). What stands in the text as HTML is text.

use pulldown_cmark::{Alignment, CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag};
use serde::Serialize;

/// Elements within elements; what is deeper stands in the deepest.
const DEPTH_MAX: usize = 32;
/// Elements and texts of one tree.
const NODES_MAX: usize = 50_000;

/// An element, or text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Node {
    /// Text.
    Text(String),
    /// An element.
    Element(Element),
}

/// An element and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Element {
    /// Its name; one of HTML's, or `check` for a box that is ticked or not, or `picture` for a picture's description.
    pub tag: &'static str,
    /// Where a link leads: to the web or to an address for mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub href: Option<String>,
    /// The number with which a list begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// Which language a piece of code is of, as its author says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// To which side a cell's text goes: `left`, `center` or `right`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub align: Option<&'static str>,
    /// Whether a box is ticked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked: Option<bool>,
    /// What is in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Node>,
}

impl Element {
    fn new(tag: &'static str) -> Self {
        Self { tag, href: None, start: None, language: None, align: None, checked: None, children: Vec::new() }
    }
}

/// A text as a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    /// Its elements.
    pub nodes: Vec<Node>,
    /// Whether there would be more.
    pub is_cut: bool,
}

/// Reads Markdown: CommonMark with tables, boxes to tick and text that is struck out.
pub fn parse(text: &str) -> Document {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS;
    let mut tree = Tree { open: vec![Element::new("")], skipped: Vec::new(), alignments: Vec::new(), column: 0, in_head: false };
    let mut is_cut = false;
    for (nodes, event) in Parser::new_ext(text, options).enumerate() {
        if nodes >= NODES_MAX {
            is_cut = true;
            break;
        }
        tree.take(event);
    }
    Document { nodes: tree.close_all(), is_cut }
}

/// What is being built: the elements that are open, the outermost first.
struct Tree {
    open: Vec<Element>,
    /// For each event that began: whether it made no element of its own.
    skipped: Vec<bool>,
    alignments: Vec<Alignment>,
    column: usize,
    in_head: bool,
}

impl Tree {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.begin(tag),
            Event::End(_) => self.end(),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            Event::Code(text) => {
                let children = vec![Node::Text(text.into_string())];
                self.put(Node::Element(Element { children, ..Element::new("code") }));
            }
            Event::SoftBreak => self.text("\n"),
            Event::HardBreak => self.put(Node::Element(Element::new("br"))),
            Event::Rule => self.put(Node::Element(Element::new("hr"))),
            Event::TaskListMarker(checked) => self.put(Node::Element(Element { checked: Some(checked), ..Element::new("check") })),
            Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => self.text(&text),
        }
    }

    fn begin(&mut self, tag: Tag<'_>) {
        let element = self.element(tag).filter(|_| self.open.len() <= DEPTH_MAX);
        self.skipped.push(element.is_none());
        self.open.extend(element);
    }

    fn end(&mut self) {
        if self.skipped.pop() == Some(false)
            && let Some(done) = self.open.pop()
        {
            self.put(Node::Element(done));
        }
    }

    /// The element that a tag of the parser is; nothing for those whose content stands by itself.
    fn element(&mut self, tag: Tag<'_>) -> Option<Element> {
        Some(match tag {
            Tag::Paragraph => Element::new("p"),
            Tag::Heading { level, .. } => Element::new(heading(level)),
            Tag::BlockQuote(_) => Element::new("blockquote"),
            Tag::CodeBlock(kind) => {
                let language = match kind {
                    CodeBlockKind::Fenced(info) => info.split([' ', ',']).next().filter(|word| !word.is_empty()).map(str::to_owned),
                    CodeBlockKind::Indented => None,
                };
                Element { language, ..Element::new("pre") }
            }
            Tag::HtmlBlock | Tag::MetadataBlock(_) => Element::new("pre"),
            Tag::List(None) => Element::new("ul"),
            Tag::List(start) => Element { start, ..Element::new("ol") },
            Tag::Item => Element::new("li"),
            Tag::Emphasis => Element::new("em"),
            Tag::Strong => Element::new("strong"),
            Tag::Strikethrough => Element::new("del"),
            Tag::Link { dest_url, .. } => Element { href: leads_out(&dest_url), ..Element::new("a") },
            Tag::Image { .. } => Element::new("picture"),
            Tag::Table(alignments) => {
                self.alignments = alignments;
                Element::new("table")
            }
            Tag::TableHead => {
                (self.column, self.in_head) = (0, true);
                Element::new("tr")
            }
            Tag::TableRow => {
                (self.column, self.in_head) = (0, false);
                Element::new("tr")
            }
            Tag::TableCell => {
                let align = match self.alignments.get(self.column) {
                    Some(Alignment::Left) => Some("left"),
                    Some(Alignment::Center) => Some("center"),
                    Some(Alignment::Right) => Some("right"),
                    Some(Alignment::None) | None => None,
                };
                self.column += 1;
                Element { align, ..Element::new(if self.in_head { "th" } else { "td" }) }
            }
            _ => return None,
        })
    }

    fn children(&mut self) -> Option<&mut Vec<Node>> {
        self.open.last_mut().map(|element| &mut element.children)
    }

    fn put(&mut self, node: Node) {
        if let Some(children) = self.children() {
            children.push(node);
        }
    }

    fn text(&mut self, text: &str) {
        let Some(children) = self.children() else { return };
        match children.last_mut() {
            Some(Node::Text(before)) => before.push_str(text),
            _ => children.push(Node::Text(text.to_owned())),
        }
    }

    fn close_all(mut self) -> Vec<Node> {
        while self.open.len() > 1 {
            if let Some(done) = self.open.pop() {
                self.put(Node::Element(done));
            }
        }
        self.open.pop().map(|root| root.children).unwrap_or_default()
    }
}

fn heading(level: HeadingLevel) -> &'static str {
    match level {
        HeadingLevel::H1 => "h1",
        HeadingLevel::H2 => "h2",
        HeadingLevel::H3 => "h3",
        HeadingLevel::H4 => "h4",
        HeadingLevel::H5 => "h5",
        HeadingLevel::H6 => "h6",
    }
}

/// The address of a link that leads out of here. All others lead nowhere: this relay's own addresses are not for somebody's text to name, and no script is
/// an address.
fn leads_out(address: &str) -> Option<String> {
    let (scheme, _) = address.split_once(':')?;
    let is_known = ["http", "https", "mailto"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    (is_known && !address.chars().any(char::is_control)).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tree(text: &str) -> Value {
        let document = parse(text);
        assert!(!document.is_cut);
        serde_json::to_value(document.nodes).unwrap()
    }

    #[test]
    fn what_people_write_becomes_elements() {
        assert_eq!(
            tree("# A *b*\n\none\ntwo  \nthree `x<y`\n"),
            json!([
                {"tag": "h1", "children": ["A ", {"tag": "em", "children": ["b"]}]},
                {"tag": "p", "children": ["one\ntwo", {"tag": "br"}, "three ", {"tag": "code", "children": ["x<y"]}]},
            ])
        );
        assert_eq!(
            tree("3. a\n4. b\n\n- [x] done\n- [ ] ~~not~~\n"),
            json!([
                {"tag": "ol", "start": 3, "children": [{"tag": "li", "children": ["a"]}, {"tag": "li", "children": ["b"]}]},
                {"tag": "ul", "children": [
                    {"tag": "li", "children": [{"tag": "check", "checked": true}, "done"]},
                    {"tag": "li", "children": [{"tag": "check", "checked": false}, {"tag": "del", "children": ["not"]}]},
                ]},
            ])
        );
        assert_eq!(
            tree("| a | b |\n|---|--:|\n| 1 | 2 |\n"),
            json!([{"tag": "table", "children": [
                {"tag": "tr", "children": [{"tag": "th", "children": ["a"]}, {"tag": "th", "align": "right", "children": ["b"]}]},
                {"tag": "tr", "children": [{"tag": "td", "children": ["1"]}, {"tag": "td", "align": "right", "children": ["2"]}]},
            ]}])
        );
        assert_eq!(tree("```rust,x\nfn\n```\n"), json!([{"tag": "pre", "language": "rust", "children": ["fn\n"]}]));
    }

    #[test]
    fn markup_is_text_and_links_lead_out_only() {
        assert_eq!(tree("<script>alert(1)</script>\n"), json!([{"tag": "pre", "children": ["<script>alert(1)</script>\n"]}]));
        assert_eq!(tree("a <img src=x onerror=y> b"), json!([{"tag": "p", "children": ["a <img src=x onerror=y> b"]}]));
        assert_eq!(tree("![tree](http://x/y.png)"), json!([{"tag": "p", "children": [{"tag": "picture", "children": ["tree"]}]}]));
        let address = |text: &str| tree(text)[0]["children"][0]["href"].clone();
        assert_eq!(address("[a](https://example.org/b?c#d)"), json!("https://example.org/b?c#d"));
        assert_eq!(address("<mailto:a@example.org>"), json!("mailto:a@example.org"));
        for bad in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "/auth/logout",
            "//example.org",
            "vbscript:x",
            "&#106;avascript:x",
            "blob:x",
        ] {
            assert_eq!(address(&format!("[a]({bad})")), Value::Null, "{bad}");
        }
    }

    fn depth(nodes: &[Node]) -> usize {
        nodes.iter().map(|node| if let Node::Element(e) = node { 1 + depth(&e.children) } else { 0 }).max().unwrap_or(0)
    }

    #[test]
    fn neither_depth_nor_number_is_without_bound() {
        let deep = parse(&format!("{}x", "> ".repeat(5000)));
        assert!(depth(&deep.nodes) <= DEPTH_MAX, "{}", depth(&deep.nodes));
        assert!(serde_json::to_string(&deep).unwrap().contains('x'));
        assert!(parse(&"*a* ".repeat(NODES_MAX)).is_cut);
    }
}
