#include "page.h"
const struct mpo_page_file mpo_page_files[3] = {{"text/html; charset=utf-8", "page", 4}, {"text/javascript", "", 0}, {"text/css", "", 0}};
