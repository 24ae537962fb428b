// From what is wrong with a text to the line on which it is.
const text = document.getElementById('text');

function go(line) {
  const lines = text.value.split('\n');
  const start = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
  text.focus();
  text.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
  text.scrollTop = (line - 4) * text.scrollHeight / lines.length;
}

for (const each of document.querySelectorAll('[data-line]')) each.addEventListener('click', () => go(Number(each.dataset.line)));
